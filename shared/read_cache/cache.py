"""The way in: a cache in one of three modes, and its groups.

::

    async with open_read_cache(settings, [GroupSpec("items", load_item)], node=node, nats=link) as cache:
        body = await cache["items"].get("a-lot")

*off*: every get is one question to the origin, bounded in number, and shared by nobody: what is told is never older
than the question, so nobody has to tell the cache of changes. *local*: kept in this process; concurrent gets of a key
are one question. Whoever changes something calls ``remove`` after its commit, and a follower of the events does so
for others' changes. *cluster*: likewise, and a key is kept by the node that owns it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from typing_extensions import override

from shared.read_cache.group import Group, GroupLimits, Load
from shared.read_cache.ring import Node
from shared.read_cache.settings import ReadCacheSettings
from shared.read_cache.stats import Stats

if TYPE_CHECKING:
    from shared.clients.nats import NatsLink
    from shared.read_cache.cluster import Cluster


@dataclass(frozen=True, slots=True)
class GroupSpec:
    """A group as it is asked for: a namespace of keys with one origin.

    Attributes:
        name: the same in all processes of a cluster.
        load: the question to the origin; None says that there is no such thing.
        limits: how long and how much is kept.
    """

    name: str
    load: Load
    limits: GroupLimits = field(default_factory=GroupLimits)


class ReadCache(Mapping[str, Group]):
    """Groups by name, in one store with one bound on loads."""

    stats: Stats
    cluster: Cluster | None
    """The peers, in the mode ``cluster``."""

    @override
    def __getitem__(self, name: str) -> Group:
        raise NotImplementedError

    @override
    def __iter__(self) -> Iterator[str]:
        raise NotImplementedError

    @override
    def __len__(self) -> int:
        raise NotImplementedError

    @property
    def bytes_used(self) -> int:
        """Of the store and the mirrors, as counted against the bound."""
        raise NotImplementedError

    @property
    def bytes_max(self) -> int:
        """The bound."""
        raise NotImplementedError

    @property
    def entries(self) -> int:
        """Kept, those that have expired and were not asked for again among them."""
        raise NotImplementedError

    def reset(self) -> None:
        """Forget everything that is kept in this process, in all groups, at once."""
        raise NotImplementedError

    def suspend(self) -> None:
        """From now on nothing is kept and nothing that is kept is told: whoever follows the changes has lost sight of
        them. Concurrent gets still share a question, and are answered as of after their beginning's newest removal."""
        raise NotImplementedError

    def resume(self) -> None:
        """Keep again, from nothing."""
        raise NotImplementedError

    async def close(self) -> None:
        """Wait for no load; whoever waits gets ``Overloaded``."""
        raise NotImplementedError


@asynccontextmanager
async def open_read_cache(
    settings: ReadCacheSettings,
    groups: Sequence[GroupSpec],
    *,
    node: Node | None = None,
    nats: NatsLink | None = None,
) -> AsyncIterator[ReadCache]:
    """A cache while inside. In the mode ``cluster`` a node serves its peers, warms up and joins, in the background;
    at the end it leaves the ring, answers what is under way, and stops.

    Args:
        node: who this is, for a node of a cluster. Its address is where it listens too. None for one that only reads.
        nats: for membership by JetStream.

    Raises:
        ValueError: settings that do not fit together, with what to do.
        OSError: the node's address is taken.
    """
    raise NotImplementedError
    yield
