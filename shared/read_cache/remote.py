"""What a group needs of the cluster. It knows no gRPC; the real one is :class:`shared.read_cache.cluster.Cluster`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from shared.read_cache.errors import Overloaded, PeerFailed


@dataclass(frozen=True, slots=True)
class Fetched:
    """A peer's answer. ``value`` is None where the origin has none; ``fresh_s`` is how long it may be kept at most."""

    value: bytes | None
    fresh_s: float


OnFetched = Callable[[Fetched | PeerFailed | Overloaded], None]


class Remote(Protocol):
    """Peers, as a group sees them."""

    def owner(self, key: str) -> str | None:
        """The name of the foreign node that owns the key now; None: this process loads it itself.

        None also where there are no nodes, or where this process is not sure of its ring.
        """

    def is_sure(self) -> bool:
        """Whether this process relies on its ring now. Without it, values are kept for moments only."""

    def ask(self, owner: str, group: str, key: str, on_fetched: OnFetched) -> None:
        """Ask the owner. Never blocks; ``on_fetched`` is called exactly once, later and within the peers' time-out."""

    async def forget(self, group: str, keys: Sequence[str] | None) -> list[str]:
        """Tell all nodes to forget keys, or all of the group: each key's owner first. The names of those that could
        not be told, after retries within the budget: they answer with what they have until it expires or they
        lapse."""
