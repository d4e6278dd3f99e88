"""Writes items to Redis as the archive has them: state, maxima, latest events, and the verdicts of their bids."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Final, cast

from redis.asyncio import Redis

from archival_worker.recovery.claims import ClaimedWrites, Run
from archival_worker.recovery.options import RecoveryReport
from archival_worker.recovery.rebuild import (
    Answered,
    Hidden,
    Rebuilt,
    Row,
    Turns,
    answered,
    maxima_after,
    maxima_of,
    rebuild,
    sealed_answer,
    terms_or_default,
)
from archival_worker.store.archive import Archive
from archival_worker.store.database import Connection
from archival_worker.store.queries import Queries
from shared import names
from shared.crash_points import crash_point
from shared.redis_layout.keys import (
    accepted_key,
    bidders_key,
    deadlines_key,
    item_key,
    proxies_key,
    recent_key,
    verdicts_key,
)
from shared.redis_layout.limits import ACCEPTED_KEPT, RECENT_EVENTS, VERDICT_KEEP_S

_VERDICTS_PER_STEP: Final = 1_000
_BIDS_PER_STEP: Final = 10_000


class ItemWriter:
    """Brings items of one shard back, and counts in the report what it wrote."""

    def __init__(
        self, redis: Redis, archive: Archive, queries: Queries, shard: str, claims: Run | None, report: RecoveryReport
    ) -> None:
        """``claims`` None: a dry run, which writes nothing."""
        self._redis = redis
        self._archive = archive
        self._sql = queries
        self._shard = shard
        self._claims = claims
        self._report = report

    async def write(self, item_ids: Sequence[str], epoch: int) -> None:
        """Bring these items back, in this epoch."""
        async with self._archive.transaction() as connection:
            rows = {row["item_id"]: row for row in await connection.fetch(self._sql.read_items, item_ids)}
            turns = _by_item(await connection.fetch(self._sql.read_turns, item_ids))
            log = _by_item(await connection.fetch(self._sql.read_log, item_ids, RECENT_EVENTS))
            hidden = await self._read_hidden(connection, item_ids)
            bidders = _by_item(await connection.fetch(self._sql.read_bidders, item_ids))
            accepted = _by_item(await connection.fetch(self._sql.read_accepted, item_ids, ACCEPTED_KEPT))
            rebuilt = [
                rebuild(
                    row,
                    Turns.after(turns[item]),
                    log[item],
                    epoch,
                    hidden=hidden[item],
                    bidders={bidder["user_id"]: bidder["bids"] for bidder in bidders[item]},
                    accepted=accepted[item],
                )
                for item, row in rows.items()
            ]
            await self._write_items(rebuilt)
            bids = self._verdicts_of(connection, self._sql.read_answered_bids, item_ids)
            await self._write_verdicts(_answers(bids, rows))
            facts = self._verdicts_of(connection, self._sql.read_sealed_answers, item_ids)
            await self._write_verdicts(_sealed_answers(facts))
            await self._expire_verdicts(rebuilt)
        self._report.paused |= {item.item_id: item.fault for item in rebuilt if item.fault is not None}

    async def _read_hidden(self, connection: Connection, item_ids: Sequence[str]) -> dict[str, Hidden]:
        """What no event tells: each item's newest sealed fact, and the plain bids since replayed on it."""
        facts = await connection.fetch(self._sql.read_standing, item_ids)
        standing = {fact["item_id"]: maxima_of(fact) for fact in facts}
        places = [[fact[name] for fact in facts] for name in ("item_id", "epoch", "seq")]
        async for bid in connection.cursor(self._sql.read_bids_after.rstrip(";"), *places, prefetch=_BIDS_PER_STEP):
            item_id = bid["item_id"]
            standing[item_id] = maxima_after(standing[item_id], bid)
        maxima = _by_item(await connection.fetch(self._sql.read_maxima, item_ids))
        return {
            item: Hidden(
                standing.get(item),
                {row["user_id"]: row["max_amount"] for row in maxima[item] if row["max_amount"] is not None},
            )
            for item in item_ids
        }

    def _verdicts_of(self, connection: Connection, query: str, item_ids: Sequence[str]) -> AsyncIterator[Row]:
        rows = connection.cursor(query.rstrip(";"), item_ids, VERDICT_KEEP_S * 1_000_000, prefetch=_VERDICTS_PER_STEP)
        return cast("AsyncIterator[Row]", rows)

    async def _write_items(self, items: Sequence[Rebuilt]) -> None:
        pipeline = self._writes()
        for item in items:
            key, recent = item_key(item.item_id), recent_key(item.item_id)
            maxima, bidders = proxies_key(item.item_id), bidders_key(item.item_id)
            accepted, verdicts = accepted_key(item.item_id), verdicts_key(item.item_id)
            pipeline.delete(key, recent, maxima, bidders, accepted, verdicts)
            pipeline.hset(key, mapping=cast(Any, item.fields))
            if item.maxima:
                pipeline.hset(maxima, mapping=cast(Any, item.maxima))
            if item.bidders:
                pipeline.hset(bidders, mapping=cast(Any, item.bidders))
            self._report.maxima += len(item.maxima)
            if item.accepted:
                pipeline.rpush(accepted, *item.accepted)
            if item.recent:
                pipeline.rpush(recent, *item.recent)
            if item.deadline_us is not None:
                pipeline.zadd(deadlines_key(names.shard_of(item.item_id)), {item.item_id: item.deadline_us})
            self._report.events += len(item.recent)
        self._report.items += len(items)
        await self._execute(pipeline)

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


def _by_item(rows: Sequence[Row]) -> defaultdict[str, list[Row]]:
    """Rows that are sorted by item, grouped."""
    groups = itertools.groupby(rows, key=lambda row: cast(str, row["item_id"]))
    return defaultdict(list, {item: list(group) for item, group in groups})


async def _answers(bids: AsyncIterator[Row], items: Mapping[str, Row]) -> AsyncIterator[Answered]:
    """The verdicts of bids, which come in order: a verdict depends on the bid and on the one after it.

    Items that come back without their terms get theirs, too: their bid ids are taken.
    """
    terms = {item: terms_or_default(row)[0] for item, row in items.items()}
    previous: Row | None = None
    async for bid in _and_none(bids):
        if previous is not None:
            found = answered(previous, bid, terms[previous["item_id"]])
            if found is not None:
                yield found
        previous = bid


async def _sealed_answers(facts: AsyncIterator[Row]) -> AsyncIterator[Answered]:
    async for fact in facts:
        yield sealed_answer(fact)


async def _and_none(rows: AsyncIterator[Row]) -> AsyncIterator[Row | None]:
    async for row in rows:
        yield row
    yield None
