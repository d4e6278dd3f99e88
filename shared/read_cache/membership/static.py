"""A list of nodes that never changes: for one machine, for tests, and for operators who manage the list themselves."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Final

from typing_extensions import override

from shared.read_cache.membership.clock import now_s
from shared.read_cache.membership.view import Relying, View
from shared.read_cache.ring import Node, Ring

_LOOK_S: Final = 1.0
STALLED_S: Final = 5.0
"""A process that did nothing for so long may have missed removals."""


class StaticMembership(Relying):
    """All nodes are in the ring, whether they live or not. There is a view while ``run`` runs."""

    def __init__(self, nodes: Iterable[Node], here: str | None = None) -> None:
        """
        Raises:
            ValueError: ``here`` is no name of the list, or the list is no ring.
        """
        super().__init__()
        ring = Ring(nodes)
        if here is not None and ring.node(here) is None:
            raise ValueError(f"this node, {here}, is not in the list of nodes")
        self._view = View(1, ring, here)

    @override
    def suspect(self, epoch: int) -> None:
        pass

    @override
    async def newest(self) -> View | None:
        return self.current()

    @override
    async def run(self) -> None:
        while True:
            self._reliance.renew(self._view, now_s() + STALLED_S)
            await asyncio.sleep(_LOOK_S)


def parse_nodes(text: str) -> list[Node]:
    """The nodes of a list ``name=host:port,name=host:port*weight``.

    Raises:
        ValueError: it is no such list; says what is wrong with it.
    """
    nodes = []
    for each in filter(None, map(str.strip, text.split(","))):
        name, equals, rest = each.partition("=")
        address, star, weight = rest.partition("*")
        if not equals or ":" not in address or (star and not weight.isdecimal()):
            raise ValueError(f"{each!r} is not name=host:port or name=host:port*weight")
        nodes.append(Node(name, address, int(weight) if star else 1))
    return nodes
