"""Writes items to Redis as the archive has them: state, maxima, latest events, and the verdicts of their bids."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from typing import Any, Final, cast

from redis.asyncio import Redis

from archival_worker.recovery.claims import ClaimedWrites, Run
from archival_worker.recovery.options import RecoveryReport
from archival_worker.store.archive import Archive
from shared.archive_reads.rebuild import Rebuilt
from shared.archive_reads.rebuild_reads import read_items, read_verdicts
from shared.archive_reads.verdicts import Answered
from shared.crash_points import crash_point
from shared.domain.auction import Status
from shared.redis_layout.accounts import USED_MAX
from shared.redis_layout.keys import (
    accepted_key,
    bidders_key,
    closed_key,
    deadlines_key,
    item_key,
    item_rulings_key,
    proxies_key,
    recent_key,
    verdicts_key,
)

_VERDICTS_PER_STEP: Final = 1_000
_LONG_FROM_NOW_US: Final = 8 * 10**15
"""An instant in 2223. It is subtracted from when a closed item changed last, and gives the score of the rebuilt item.
Until then that score is below 0, which means archived; and items are in the order in which they become due to leave."""


class ItemWriter:
    """Brings items of one shard back, and counts in the report what it wrote."""

    def __init__(
        self,
        redis: Redis,
        archive: Archive,
        shard: str,
        claims: Run | None,
        report: RecoveryReport,
        *,
        limited: Collection[tuple[str, str]] = (),
    ) -> None:
        """
        Args:
            claims: None for a dry run, which writes nothing.
            limited: bidders and currencies in which they have accounts: what they lead with is counted in ``used``.
        """
        self._redis = redis
        self._archive = archive
        self._shard = shard
        self._claims = claims
        self._report = report
        self._limited = limited
        self.used: Counter[tuple[str, str]] = Counter()

    async def write(self, item_ids: Sequence[str], epoch: int) -> None:
        """Bring these items back, in this epoch."""
        async with self._archive.transaction() as connection:
            read = await read_items(connection, item_ids, epoch)
            await self._write_items(read.items)
            await self._write_verdicts(read_verdicts(connection, item_ids, read.terms))
            await self._expire_verdicts(read.items)
        self._report.paused |= {item.item_id: item.fault for item in read.items if item.fault is not None}

    async def _write_items(self, items: Sequence[Rebuilt]) -> None:
        pipeline = self._writes()
        for item in items:
            key, recent = item_key(item.item_id), recent_key(item.item_id)
            maxima, bidders = proxies_key(item.item_id), bidders_key(item.item_id)
            accepted, verdicts = accepted_key(item.item_id), verdicts_key(item.item_id)
            rulings = item_rulings_key(item.item_id)
            pipeline.delete(key, recent, maxima, bidders, accepted, verdicts, rulings)
            pipeline.hset(key, mapping=cast(Any, item.fields | self._charged(item.fields)))
            if item.maxima:
                pipeline.hset(maxima, mapping=cast(Any, item.maxima))
            if item.bidders:
                pipeline.hset(bidders, mapping=cast(Any, item.bidders))
            if item.rulings:
                pipeline.hset(rulings, mapping=cast(Any, item.rulings))
            self._report.maxima += len(item.maxima)
            if item.accepted:
                pipeline.rpush(accepted, *item.accepted)
            if item.recent:
                pipeline.rpush(recent, *item.recent)
            if item.deadline_us is not None:
                pipeline.zadd(deadlines_key(self._shard), {item.item_id: item.deadline_us})
            if item.verdicts_until_us is not None:
                # It is closed. All of it is archived, so it may leave again when its time has come.
                pipeline.zadd(closed_key(self._shard), {item.item_id: item.updated_us - _LONG_FROM_NOW_US})
            self._report.events += len(item.recent)
        self._report.items += len(items)
        await self._execute(pipeline)

    def _charged(self, fields: Mapping[str, str]) -> dict[str, str]:
        """The field that says to whose account the item counts (``charge`` in the gateway's ``lib/item.lua``)."""
        account = (fields["leader"], fields["currency"])
        if account not in self._limited or Status(fields["status"]).is_final:
            return {}
        if self.used[account] + int(fields["leader_max"]) > USED_MAX:
            return {"charged": f"{fields['leader']}|0"}
        self.used[account] += int(fields["leader_max"])
        return {"charged": f"{fields['leader']}|{fields['leader_max']}"}

    async def _write_verdicts(self, answers: AsyncIterator[Answered]) -> None:
        pipeline, waiting = self._writes(), 0
        async for answer in answers:
            pipeline.put(verdicts_key(answer.item_id), answer.fields, answer.verdict.encode())
            waiting += 1
            self._report.verdicts += 1
            if waiting == _VERDICTS_PER_STEP:
                await self._execute(pipeline)
                waiting = 0
        await self._execute(pipeline)

    async def _expire_verdicts(self, items: Sequence[Rebuilt]) -> None:
        """Last, because the hashes must exist before they can expire."""
        pipeline = self._writes()
        for item in items:
            if item.verdicts_until_us is not None:
                pipeline.expire_at(verdicts_key(item.item_id), item.verdicts_until_us // 1_000)
        await self._execute(pipeline)

    def _writes(self) -> ClaimedWrites:
        """A pipeline to the shard. Every write of a run to Redis goes through one."""
        if self._claims is None:
            return ClaimedWrites(self._redis, self._shard, "")
        return self._claims.writes(self._shard)

    async def _execute(self, pipeline: ClaimedWrites) -> None:
        if self._claims is None:
            pipeline.forget()
        else:
            crash_point("recover.writing")
            await pipeline.execute()
