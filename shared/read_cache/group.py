"""A group: keys of one origin, with what is kept of them."""

from __future__ import annotations

import enum
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Final

Load = Callable[[str], Awaitable[bytes | None]]


class Missing(enum.Enum):
    """Nothing is known. Not the same as a None, by which the origin says that there is nothing."""

    MISSING = "missing"


MISSING: Final = Missing.MISSING
KEYS_MAX: Final = 1_000


@dataclass(frozen=True, slots=True)
class GroupLimits:
    """How long and how much a group keeps.

    Attributes:
        ttl_s: a value is kept for at most so long, and at least nine tenths of it: what was loaded in one moment does
            not expire in one moment.
        negative_ttl_s: likewise for "there is none".
        mirror_ttl_s: for values of keys that another node owns. How long a reader may see what the owner has forgotten.
        value_bytes_max: a larger value is served and not kept.
        load_timeout_s: for one question to the origin.
    """

    ttl_s: float = 300.0
    negative_ttl_s: float = 5.0
    mirror_ttl_s: float = 0.5
    value_bytes_max: int = 256 * 1024
    load_timeout_s: float = 5.0


class Group:
    """Made by :class:`shared.read_cache.cache.ReadCache`."""

    name: str
    limits: GroupLimits

    def cached(self, key: str) -> bytes | Missing | None:
        """What is kept here now, without waiting; ``MISSING`` where nothing is. None: the origin has none."""
        raise NotImplementedError

    async def get(self, key: str) -> bytes | None:
        """The value, or None where the origin has none: kept here, or by the key's owner, or loaded.

        Never older than the newest ``remove`` of the key, or reset, that this process had seen when the call began.
        A caller that is cancelled cancels nobody else's load.

        Raises:
            Overloaded: the origin has more to do than it can.
            OriginSlow: it did not answer in time.
            Exception: what ``load`` raised; every caller that waited for this load gets it, and it is not kept.
        """
        raise NotImplementedError

    async def get_many(self, keys: Iterable[str]) -> dict[str, bytes | None]:
        """All of them, in their order, each as :meth:`get` would tell it; what is asked of one owner goes in one
        message.

        Raises:
            ValueError: more than ``KEYS_MAX`` keys.
            Exception: the first error of any of them, after all have ended.
        """
        raise NotImplementedError

    def forget(self, *keys: str) -> None:
        """Drop what this process keeps under the keys. What is being loaded is given to those who wait and not kept,
        and a get after this call begins anew."""
        raise NotImplementedError

    async def remove(self, *keys: str) -> list[str]:
        """Forget the keys here, and at all nodes of the cluster; to be called after the commit of what changed them.

        Returns:
            The names of nodes that could not be told.
        """
        raise NotImplementedError

    def forget_all(self) -> None:
        """Forget all of the group in this process, in constant time: what is of a former generation is missing."""
        raise NotImplementedError

    async def reset(self) -> list[str]:
        """Forget all of the group here and at all nodes. Returns the names of nodes that could not be told."""
        raise NotImplementedError
