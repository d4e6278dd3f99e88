"""Strikes bids: the script does it. Where the log in Redis does not reach back to the first bid, this counts first."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final, Protocol, cast

from redis.asyncio import Redis
from redis.exceptions import RedisError

from api_gateway.engine.bids.counting import Count
from api_gateway.engine.item_scripts import ItemScripts
from api_gateway.reads.bids_in_order import Bookmark
from shared.clients.redis import told_of
from shared.domain.auction import Terms
from shared.domain.errors import BidNotFound, BidStruck, ItemNotFound, LeadLacksCredit, Unavailable
from shared.domain.voiding import LogEntry, cause_of
from shared.redis_layout.accepted_log import decode_entry
from shared.redis_layout.item_hash import decode_item
from shared.redis_layout.keys import accepted_key, item_key

_TRIES: Final = 20
_ARCHIVE_WAIT_S: Final = 5.0
_LOOK_AGAIN_S: Final = 0.1
_COUNTED_AT_ONCE: Final = 100
# Less than the minute after which a load balancer gives up a silent request.
_COUNT_WITHIN_S: Final = 50.0

Cover = Callable[[LeadLacksCredit], Awaitable[bool]]
"""Gets credit for a lead into the shard; whether it is worth asking the shard again."""


class AcceptedBids(Protocol):
    """What a void asks the archive; :class:`api_gateway.reads.archive.Archive`. Raises :class:`Unavailable`."""

    async def version(self, item_id: str) -> tuple[int, int] | None: ...
    async def count_voids(self, item_id: str) -> int: ...
    async def accepted_bid(self, item_id: str, bid_id: str) -> LogEntry | None: ...
    def accepted_bids(
        self, item_id: str, *, after: Bookmark | None
    ) -> AsyncGenerator[tuple[Bookmark, LogEntry], None]: ...


@dataclass(frozen=True, slots=True)
class _Tail:
    """The item and its log as Redis had them at one moment."""

    terms: Terms
    version: tuple[int, int]
    accepted: int
    voids: int
    counts_voids: bool
    log: list[LogEntry]

    @property
    def first(self) -> int:
        """The first position that the log has for certain, as in ``void.lua``."""
        if not self.log:
            return self.accepted + 1
        return self.log[0].position + (self.log[0].kind == "anew")

    @property
    def last(self) -> int:
        """The position of the newest bid."""
        return self.log[-1].position if self.log else self.accepted


@dataclass(slots=True)
class _Counted:
    """What is counted from the archive so far, and up to which place there."""

    count: Count
    place: Bookmark | None = None


class Voids:
    """Strikes bids, one step of the script each."""

    def __init__(
        self,
        redis: Redis,
        scripts: ItemScripts,
        archive: AcceptedBids,
        *,
        count_within_s: float = _COUNT_WITHIN_S,
    ) -> None:
        """``count_within_s``: how long one void may count what Redis does not know any more."""
        self._redis = redis
        self._scripts = scripts
        self._archive = archive
        self._count_within_s = count_within_s

    async def strike(self, item_id: str, bid_id: str, *, reason: str, by: str, cover: Cover | None = None) -> int:
        """Strike a bid. Returns the outbox entry. ``cover``: what to do where a lead lacks credit; what was counted
        stays counted meanwhile.

        Raises:
            ItemNotFound, BidNotFound, BidStruck, LeadLacksCredit, StateConflict: nothing was changed.
            Unavailable: nothing was changed; the archive cannot be asked, or lags too far behind, or the item
                has too many bids.
            RedisError, OSError: unknown whether it was done; a repeat is refused if it was.
        """
        count: list[str] = []
        give_up_s = asyncio.get_running_loop().time() + self._count_within_s
        for _ in range(_TRIES):
            try:
                entry = await self._scripts.void(item_id, bid_id, count=count, reason=reason, by=by)
            except LeadLacksCredit as lacking:
                if cover is None or not await cover(lacking):
                    raise
                continue
            if entry is not None:
                return entry
            # Other bids do not disturb this count: the script counts on from it, in the step in which it writes. Only
            # 1,024 bids in between, or another void, do.
            try:
                async with asyncio.timeout_at(give_up_s):
                    count = await self._counted(item_id, bid_id)
            except TimeoutError:
                raise Unavailable("the item has too many bids to be counted in time; pause it first") from None
        raise Unavailable("the item is too busy right now; pause it first, then strike the bid")

    async def _counted(self, item_id: str, bid_id: str) -> list[str]:
        tail = await self._tail(item_id)
        struck = next((e for e in tail.log if e.bid.bid_id == bid_id and e.kind != "anew"), None)
        struck = struck or await self._archived_bid(item_id, bid_id, tail)
        if struck is None:
            raise BidNotFound(item_id, bid_id, cause=cause_of(bid_id))
        if struck.is_struck:
            raise BidStruck(item_id, bid_id)
        counted, voids, epoch = _Counted(Count(tail.terms, struck)), tail.voids, tail.version[0]
        while True:
            counted = await self._count_archived(item_id, counted, tail)
            newest = await self._tail(item_id)
            if newest.log and not tail.log:
                # Without a log the archive was counted to its end, and some of these may be among what was counted.
                counted = _Counted(Count(newest.terms, struck))
            elif newest.first <= tail.last + 1:
                break
            tail = newest  # while the first bids were counted, others pushed these out
        count = counted.count
        # What the newer log has is taken from it: a replica may have taken over that lacked entries of the older one.
        begins = newest.log[0].bid.bid_id if newest.log else None
        for entry in itertools.takewhile(lambda entry: entry.bid.bid_id != begins, tail.log):
            count.add(entry)
        for entry in newest.log:
            count.add(entry)
        return count.arguments(voids, epoch)

    async def _archived_bid(self, item_id: str, bid_id: str, tail: _Tail) -> LogEntry | None:
        """A bid from before the log begins.

        The archive may lag. Then it does not know an accepted bid, or not that the bid was struck a moment ago: of two
        operators who strike a bid at once, the second would strike it again.
        """
        struck = await self._archive.accepted_bid(item_id, bid_id)
        if struck is None:
            await self._until_archived(item_id, tail, voids=0)
            struck = await self._archive.accepted_bid(item_id, bid_id)
        if struck is not None and not struck.is_struck:
            await self._until_archived(item_id, tail, voids=tail.voids)
            struck = await self._archive.accepted_bid(item_id, bid_id)
        return struck

    async def _count_archived(self, item_id: str, counted: _Counted, tail: _Tail) -> _Counted:
        """Count on what was accepted before the log begins.

        Raises:
            Unavailable: the archive does not have all of it, and did not get it in a few seconds.
        """
        give_up_s = asyncio.get_running_loop().time() + _ARCHIVE_WAIT_S
        # Counting begins when all is archived: what comes late would be left out.
        await self._until_archived(item_id, tail, voids=tail.voids)
        while not await self._count_on(item_id, counted, tail):
            await self._look_again(give_up_s)
            counted = _Counted(Count(tail.terms, counted.count.struck))
        counted.count.position = tail.first - 1
        return counted

    async def _count_on(self, item_id: str, counted: _Counted, tail: _Tail) -> bool:
        """Count on. Returns whether all was there, up to where the log begins; if not, the count is of no use."""
        count, oldest = counted.count, tail.log[0].bid.bid_id if tail.log else None
        has_oldest = oldest is None
        async with aclosing(self._archive.accepted_bids(item_id, after=counted.place)) as bids:
            async for place, entry in bids:
                if entry.bid.bid_id == oldest:
                    has_oldest = True
                    break
                count.add(entry)
                counted.place = place
                if count.entries % _COUNTED_AT_ONCE == 0:
                    await asyncio.sleep(0)  # the bids of others go on meanwhile
        return has_oldest and count.entries >= tail.first - 1

    async def _until_archived(self, item_id: str, tail: _Tail, *, voids: int) -> None:
        """Wait until everything that was accepted before the log begins is archived, and ``voids`` voids.

        An item that is older than the count of voids had more of them than Redis says: there, wait until all events are
        archived. Epochs are not compared: a rebuilt item goes on in a new one, of which nothing may be archived yet.

        Raises:
            Unavailable: not in a few seconds.
        """
        wanted = tail.log[0].seq if tail.log and tail.counts_voids else tail.version[1]
        give_up_s = asyncio.get_running_loop().time() + _ARCHIVE_WAIT_S
        while True:
            _, seq = await self._archive.version(item_id) or (0, -1)
            if seq >= wanted and await self._archive.count_voids(item_id) >= voids:
                return
            await self._look_again(give_up_s)

    async def _look_again(self, give_up_s: float) -> None:
        if asyncio.get_running_loop().time() > give_up_s:
            raise Unavailable("the archive lags behind: this bid can be struck when it has caught up")
        await asyncio.sleep(_LOOK_AGAIN_S)

    async def _tail(self, item_id: str) -> _Tail:
        pipeline = self._redis.pipeline(transaction=True)
        pipeline.hgetall(item_key(item_id))
        pipeline.lrange(accepted_key(item_id), 0, -1)
        try:
            fields, lines = await cast("Awaitable[Any]", pipeline.execute())
        except (RedisError, OSError, TimeoutError) as error:
            raise Unavailable(f"Redis cannot be asked: {told_of(error)}") from error
        if not fields:
            raise ItemNotFound(item_id)
        item = decode_item(fields)
        accepted = int(fields.get(b"accepted") or item.state.bid_count)
        voids = int(fields.get(b"voids") or 0)
        counts_voids = b"keeps_verdicts" in fields  # both fields came with one version, and `recover` writes both
        return _Tail(item.terms, item.version, accepted, voids, counts_voids, [decode_entry(line) for line in lines])
