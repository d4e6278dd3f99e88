"""Closed items that have left Redis, out of the archive: their state, their newest events, how their bidders stand.

Redis is always asked first; what it has is newer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Collection
from dataclasses import replace
from typing import Final, Protocol, TypeVar

import msgspec

from shared.archive_reads.keys import state_key
from shared.archive_reads.origin import ClosedReads, decode_state
from shared.domain.errors import Unavailable
from shared.messages import AnyEvent, BidVoided
from shared.redis_layout.item_hash import ItemState

T = TypeVar("T")

_SILENT_S: Final = 5.0


class ArchiveAway(OSError):
    """The archive cannot be asked now, and Redis does not have the item: nobody can tell what became of it."""


class FeedReads(Protocol):
    """See :class:`shared.archive_reads.feed_reads.FeedReads`, whose errors it shares."""

    async def newest_events(self, item_id: str, count: int) -> list[AnyEvent]: ...
    async def bidders(self, item_id: str, users: Collection[str]) -> set[str]: ...
    async def voids(self, item_id: str) -> list[BidVoided]: ...


class LeftItems:
    """Reads only; may be repeated at will. Every method raises :class:`ArchiveAway`."""

    def __init__(self, reads: ClosedReads, feed: FeedReads) -> None:
        self._reads = reads
        self._feed = feed
        self._silent_until_s = 0.0

    @property
    def is_silent(self) -> bool:
        """Whether the archive did not answer a moment ago. What it did not find then may be there."""
        return asyncio.get_running_loop().time() < self._silent_until_s

    async def find(self, item_id: str, epoch: int) -> ItemState | None:
        """The item, in the epoch that its shard has in Redis; None where it is no closed one."""
        value = await self._answer(self._reads.get(state_key(item_id)))
        if value is None:
            return None
        item = decode_state(value)
        return msgspec.structs.replace(item, state=replace(item.state, epoch=epoch))

    async def newest_events(self, item_id: str, count: int) -> list[AnyEvent]:
        """The newest events of a closed item, newest first."""
        return await self._answer(self._feed.newest_events(item_id, count))

    async def bidders(self, item_id: str, users: Collection[str]) -> set[str]:
        """Those of these users of whom an accepted bid stands."""
        return await self._answer(self._feed.bidders(item_id, users))

    async def voids(self, item_id: str) -> list[BidVoided]:
        """The item's newest voids, oldest first."""
        return await self._answer(self._feed.voids(item_id))

    async def _answer(self, asked: Awaitable[T]) -> T:
        try:
            answer = await asked
        except Unavailable as error:
            self._silent_until_s = asyncio.get_running_loop().time() + _SILENT_S
            raise ArchiveAway(str(error)) from error
        self._silent_until_s = 0.0
        return answer
