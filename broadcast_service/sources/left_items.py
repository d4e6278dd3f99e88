"""Reads closed items that have left Redis from the archive: state, newest events, and how their bidders stand.

Redis is always asked first; what it has is newer.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Final, NamedTuple, Protocol, TypeVar

import msgspec

from shared.archive_reads.keys import state_key
from shared.archive_reads.origin import ClosedReads, decode_state
from shared.domain.errors import Unavailable
from shared.messages import AnyEvent, BidVoided
from shared.redis_layout.item_hash import ItemState

T = TypeVar("T")

ASKING_MAX: Final = 2
"""Questions about items at once; and as many about bidders."""
TURN_S: Final = 2.0
SILENT_S: Final = 5.0
KEPT_S: Final = 5.0
"""How long a "no" is kept."""
KEPT_MAX: Final = 10_000


class ArchiveAway(OSError):
    """The archive cannot be asked now, and Redis does not have the item: nobody can tell what became of it."""


class FeedReads(Protocol):
    """See :class:`shared.archive_reads.feed_reads.FeedReads`, whose errors it shares."""

    async def newest_events(self, item_id: str, count: int) -> list[AnyEvent]: ...
    async def bidders(self, item_id: str, users: Collection[str]) -> set[str]: ...
    async def voids(self, item_id: str) -> list[BidVoided]: ...


class Standings(NamedTuple):
    """The users who have an accepted bid that stands, and the item's newest voids, oldest first."""

    bidders: set[str]
    voids: list[BidVoided]


class LeftItems:
    """Reads only; may be repeated at will. Every method raises :class:`ArchiveAway`.

    Anybody may watch any id, and an id that Redis does not have is asked for again each second. Therefore few questions
    are asked at a time, a "no such item" is kept for a while, and an archive that does not answer is asked only one
    question every few seconds, until it answers.
    """

    def __init__(self, reads: ClosedReads, feed: FeedReads, *, silent_s: float = SILENT_S) -> None:
        """``silent_s``: how long an archive that did not answer is not asked."""
        self._silent_s = silent_s
        self._reads = reads
        self._feed = feed
        self._items = asyncio.Semaphore(ASKING_MAX)
        self._bidders = asyncio.Semaphore(ASKING_MAX)
        # Item id to when its "no" expires. In order of insertion, so the oldest is first.
        self._unknown: dict[str, float] = {}
        self._is_away = False
        self._is_probed = False
        self._probe_at_s = 0.0

    async def find(self, item_id: str, epoch: int) -> ItemState | None:
        """The item, in the epoch that its shard has in Redis. None if the archive has no such closed item, or had none
        a few seconds ago."""
        if self._is_unknown(item_id):
            return None
        async with _turn(self._items):
            value = await self._answer(lambda: self._reads.get(state_key(item_id)))
        self._remember(item_id, is_closed=value is not None)
        if value is None:
            return None
        item = decode_state(value)
        return msgspec.structs.replace(item, state=replace(item.state, epoch=epoch))

    def _is_unknown(self, item_id: str) -> bool:
        return self._unknown.get(item_id, 0.0) > asyncio.get_running_loop().time()

    def _remember(self, item_id: str, *, is_closed: bool) -> None:
        self._unknown.pop(item_id, None)
        if is_closed:
            return
        self._unknown[item_id] = asyncio.get_running_loop().time() + KEPT_S
        if len(self._unknown) > KEPT_MAX:
            del self._unknown[next(iter(self._unknown))]

    async def newest_events(self, item_id: str, count: int) -> list[AnyEvent]:
        """The newest events of a closed item, newest first."""
        async with _turn(self._items):
            return await self._answer(lambda: self._feed.newest_events(item_id, count))

    async def standings(self, item_id: str, users: Collection[str]) -> Standings | None:
        """How these users stand on a closed item; None where it is no closed one.

        If too many others ask, this raises at once instead of waiting: the caller has live items to read, too.
        """
        if self._bidders.locked():
            raise ArchiveAway("too many ask the archive how bidders stand")
        async with self._bidders:
            if not self._is_unknown(item_id):
                is_closed = await self._answer(lambda: self._reads.get(state_key(item_id))) is not None
                self._remember(item_id, is_closed=is_closed)
            if self._is_unknown(item_id):
                return None
            bidders = await self._answer(lambda: self._feed.bidders(item_id, users))
            return Standings(bidders, await self._answer(lambda: self._feed.voids(item_id)))

    async def _answer(self, ask: Callable[[], Awaitable[T]]) -> T:
        clock = asyncio.get_running_loop().time
        if self._is_away and (self._is_probed or clock() < self._probe_at_s):
            raise ArchiveAway("the archive did not answer a moment ago")
        is_probe = self._is_probed = self._is_away
        try:
            answer = await ask()
        except Unavailable as error:
            self._is_away, self._probe_at_s = True, clock() + self._silent_s
            raise ArchiveAway(str(error)) from error
        finally:
            if is_probe:
                self._is_probed = False
        self._is_away = False
        return answer


@asynccontextmanager
async def _turn(turns: asyncio.Semaphore) -> AsyncIterator[None]:
    try:
        async with asyncio.timeout(TURN_S):
            await turns.acquire()
    except TimeoutError:
        raise ArchiveAway("too many ask the archive for items") from None
    try:
        yield
    finally:
        turns.release()
