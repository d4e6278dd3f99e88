"""What a group needs of the cluster. It knows no gRPC; the real one is :class:`shared.read_cache.cluster.Cluster`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, Protocol

import msgspec

from shared.read_cache.errors import Overloaded, PeerFailed


class Heard(NamedTuple):
    """How far a process has heard of changes; zeros where it follows nothing.

    Attributes:
        changes: a sequence number of the stream that tells of changes.
        stream: which stream that is: when it was made, in microseconds. One that was made anew counts anew.
        rebuilds: a number that grows whenever all of the origin may have changed, and no event says so.
    """

    changes: int = 0
    rebuilds: int = 0
    stream: int = 0

    def covers(self, needed: Heard) -> bool:
        """Whether everything was heard that ``needed`` names."""
        is_same = self.stream == needed.stream
        return is_same and self.changes >= needed.changes and self.rebuilds >= needed.rebuilds


UNHEARD: Final = Heard()


class Fetched(msgspec.Struct, frozen=True, gc=False):
    """A peer's answer. There is one for each get, so it is the type that Python makes fastest.

    Attributes:
        value: None where the origin has none.
        fresh_s: how long it may be kept at most.
        heard: what the peer had heard of at least when it looked the value up.
    """

    value: bytes | None
    fresh_s: float
    heard: Heard = UNHEARD


OnFetched = Callable[[Fetched | PeerFailed | Overloaded], None]


class Remote(Protocol):
    """Peers, as a group sees them."""

    def owner(self, key: str) -> str | None:
        """The name of the foreign node that answers for the key now; None: this process loads it itself.

        None also where there are no nodes, or where this process is not sure of its ring. Call :meth:`is_sure` first,
        in the same step: this relies on its answer.
        """

    def is_sure(self) -> bool:
        """Whether this process relies on its ring now. Without it, values are kept for moments only."""

    def ask(self, owner: str, group: str, key: str, on_fetched: OnFetched, *, kept_only: bool = False) -> None:
        """Ask that node. Never blocks; ``on_fetched`` is called exactly once, perhaps at once, and within a time that
        is bounded. With ``kept_only`` the node does not go to the origin: for a key that it does not have the answer is
        a ``PeerFailed``."""

    async def forget(self, group: str, keys: Sequence[str] | None) -> list[str]:
        """Tell all nodes to forget keys, or all of the group (None). The names of those that could not be told, after
        retries within the budget: they answer with what they have until it expires, or their view lapses."""
