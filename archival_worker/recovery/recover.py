"""Rebuilds the shards that Redis has lost, from PostgreSQL and from what JetStream holds beyond it.

A shard is lost if Redis has no cursors of it and the archive knows it, or knows another shard without cursors. The
gateways refuse its bids (``BEING_REBUILT``) until the cursors are back, so nobody else writes to it. A closed shard is
treated as lost (:mod:`archival_worker.recovery.closed_shards`). In order:

0. The run notes which shards are lost. Shards that are lost or closed later wait for the next run: the steps that
   follow may have passed them.
1. What the stream holds beyond the archive is stored in PostgreSQL, by the same path and with the same checks as in a
   worker (which may run meanwhile, and will find these messages stored). This waits until no gateway can still be
   publishing what it had read from the old Redis. After it only PostgreSQL is read.
2. The lost shards are claimed in Redis, and their new epochs are recorded in PostgreSQL. From then on nothing of a
   former epoch gets into the archive.
3. Shard by shard, every item is written, with its latest events and the verdicts of its bids
   (:mod:`archival_worker.recovery.items`). Then the cursors are written and the claim is removed, in one step. That
   opens the shard.

A run that is killed leaves finished shards, and claims on the others; the next run continues with these. It takes them
over even from a run that only seems to be dead: :mod:`archival_worker.recovery.claims`. It removes what that run had
written, since closed items may have become due to leave Redis in between.
The `shard_cursors` of the archive are left alone: they move to the new epoch with its first entry.
"""

from __future__ import annotations

import asyncio
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Final, NamedTuple
from uuid import uuid4

import asyncpg
from nats.js import JetStreamContext
from redis.asyncio import Redis

from archival_worker.consume.backlog import first_unarchived, newest_epochs, read_backlog
from archival_worker.consume.deliveries import Delivery
from archival_worker.errors import ArchiveUnavailable, RecoveryRefused, ShardChanged
from archival_worker.recovery.claims import Claim, Run
from archival_worker.recovery.closed_shards import ClosedShards
from archival_worker.recovery.items import ItemWriter
from archival_worker.recovery.options import RecoverOptions, RecoveryReport
from archival_worker.store.archive import Archive
from archival_worker.store.database import is_gone, translated
from archival_worker.store.queries import Queries, load_queries
from shared import names
from shared.crash_points import crash_point
from shared.domain.errors import BiddingError
from shared.redis_layout.accounts import COUNTING, Lease, name_of
from shared.redis_layout.cursors import ask_is_open, read_cursors
from shared.redis_layout.keys import (
    account_key,
    closed_key,
    credit_key,
    deadlines_key,
    item_key,
    outbox_key,
    rebuilding_key,
    rulings_key,
    spreading_key,
)
from shared.redis_layout.rulings import HouseRuling, field_of, home_of

_COUNTINGS_PER_EPOCH: Final = 1_000_000_000
_ITEMS_PER_STEP: Final = 100
_EXISTS_PER_STEP: Final = 1_000
RECOVERY_LOCK: Final = 7_301_985_221
"""The advisory lock that a run holds. Any number will do that nothing else in the database uses."""


class SpendingLimit(NamedTuple):
    """What a bidder may spend in a currency, in minor units, None for any amount; and which ruling says so."""

    most: int | None
    generation: str


class Recovery:
    """One run. Progress goes to ``tell``, a line at a time."""

    def __init__(
        self,
        redis: Redis,
        archive: Archive,
        jetstream: JetStreamContext | None,
        options: RecoverOptions | None = None,
        *,
        tell: Callable[[str], None],
        queries: Queries | None = None,
    ) -> None:
        """``jetstream`` None: the stream is not read; only what is archived comes back."""
        self._redis = redis
        self._archive = archive
        self._jetstream = jetstream
        self._options = options = options or RecoverOptions()
        self._tell = tell
        self._sql = queries or load_queries()
        self._closed = ClosedShards(redis, archive)
        item_id = options.item_id if options.dry_run else None
        # A dry run does not close the shard, but reports as if it had.
        self._would_close = None if item_id is None else names.shard_of(item_id)
        self._claims: Run | None = None
        self._missing: list[str] = []
        self._rulings: dict[str, str] = {}
        self._taken_back: dict[str, dict[str, str]] = defaultdict(dict)
        self._at_home: dict[str, list[str]] = defaultdict(list)
        self._limits: dict[tuple[str, str], SpendingLimit] = {}
        self.report = RecoveryReport()

    async def run(self) -> RecoveryReport:
        """Rebuild every lost shard.

        Raises:
            RecoveryRefused: no shard is lost, or another run is under way. Nothing was changed.
            RecoveryOvertaken: this run lost its lock, and another run is at work. What that one wrote stands.
            ArchiveUnavailable, StreamUnavailable, RedisError, OSError: a server is unreachable. Shards that are
                reported as done are done; run it again for the others.
        """
        async with self._archive.connection() as connection:
            # Closing the connection releases the lock, whatever happens.
            if not await connection.fetchval("SELECT pg_try_advisory_lock($1)", RECOVERY_LOCK):
                raise RecoveryRefused("another recovery is under way")
            if not self._options.dry_run:
                self._claims = await Run.begin(self._redis, self._archive, connection, self._sql)
            try:
                # Errors of this very connection are asked about below, like those of others.
                with translated():
                    return await self._run()
            except BiddingError as error:
                lock_is_gone = await is_gone(connection)
                # It is not used again. The pool would fail to reset a broken one, and hide this error.
                with suppress(asyncpg.InterfaceError):  # it is closed already
                    connection.terminate()
                if not lock_is_gone or not isinstance(error, ArchiveUnavailable):
                    raise
                # The lock is gone with the connection, so another run may be at work.
                raise ArchiveUnavailable(f"the connection that keeps other runs out is gone: {error}") from error

    async def _run(self) -> RecoveryReport:
        if self._options.item_id is not None:
            await self._closed.close_for(self._options.item_id, self._jetstream, dry_run=self._options.dry_run)
        started_s = time.monotonic()
        # A shard lost or closed after this may have entries that this run neither reads from the stream nor saves.
        self._missing = await self._without_cursors()
        if not self._missing:
            raise RecoveryRefused("every shard has its cursors: Redis has lost nothing, and nothing was changed")
        closed = await self._closed.find()
        await self._drain_stream(started_s)
        if not self._options.dry_run:
            self.report.from_outbox, put_aside = await self._closed.archive(closed)
            self.report.put_aside += put_aside
        floors = await self._epochs_elsewhere(closed)
        epochs = await self._lost_shards(closed, floors)
        if not epochs and not (self._options.dry_run and self.report.from_stream):
            raise RecoveryRefused("the archive knows nothing of the shards without cursors: they are new, not lost")
        items = await self._items_by_shard(epochs)
        total = sum(map(len, items.values()))
        self._tell(f"{len(epochs)} shards are lost, with {total} items in the archive")
        for shard in epochs:
            leftovers = await self._leftovers(shard, items[shard], closed)
            if leftovers:
                self.report.untouched[shard] = leftovers
                self._tell(f"{shard}: left alone: {leftovers}")
        epochs = {shard: epoch for shard, epoch in epochs.items() if shard not in self.report.untouched}
        discarded = [shard for shard in closed if shard in epochs]
        if discarded:
            self._tell(f"{len(discarded)} of them are closed; what Redis has of them is discarded")
        if self._claims is not None:
            epochs, taken_over = await self._begin(self._claims, epochs, closed, floors)
            # Again: until the new epochs were recorded, a worker may have stored an item that was not there before.
            items = await self._items_by_shard(epochs)
            await self._read_rulings()
            await self._closed.discard({*discarded, *taken_over} & epochs.keys(), self._claims)
        for shard, epoch in epochs.items():
            await self._recover_shard(shard, epoch, items[shard])
        if self.report.put_aside:
            self._tell(f"{self.report.put_aside} messages were put aside: see `dead-letters list`")
        return self.report

    async def _begin(
        self, claims: Run, shards: Iterable[str], closed: Mapping[str, int], floors: Mapping[str, int]
    ) -> tuple[dict[str, int], list[str]]:
        """Claim these shards, and give each its new epoch. Call it before reading what is to be rebuilt.

        Returns:
            the epochs, and those of the shards in which an earlier run may have written something.
        """
        begun: dict[str, int] = {}
        taken_over: list[str] = []
        for shard in shards:
            try:
                claim = await claims.claim(shard, stale=closed.get(shard))
            except ShardChanged as error:
                self.report.untouched[shard] = str(error)
                self._tell(f"{shard}: left alone: {error}")
                continue
            if claim is Claim.IS_OPEN:
                self._tell(f"{shard}: is open: another run has rebuilt it")
            else:
                if claim is Claim.TAKEN_OVER:
                    taken_over.append(shard)
                begun[shard] = await claims.give_epoch(shard, self._options.actor, above=floors.get(shard, 0))
                crash_point("recover.begun")
        return begun, taken_over

    async def _epochs_elsewhere(self, closed: Mapping[str, int]) -> dict[str, int]:
        """The newest epochs of the missing shards in Redis and the stream. PostgreSQL may lack these, if it was
        restored to an older state."""
        missing = await self._without_cursors()
        streamed = {} if self._jetstream is None else await newest_epochs(self._jetstream, missing)
        return {shard: max(closed.get(shard, 0), streamed.get(shard, 0)) for shard in missing}

    async def _without_cursors(self) -> list[str]:
        pipeline = self._redis.pipeline(transaction=False)
        for shard in names.SHARDS:
            ask_is_open(pipeline, shard)
        cursors = zip(names.SHARDS, await pipeline.execute(), strict=True)
        return [shard for shard, there in cursors if not there or shard == self._would_close]

    async def _lost_shards(self, closed: Collection[str], floors: Mapping[str, int]) -> dict[str, int]:
        """The lost shards, and the epoch that each of them would get now.

        If one shard without cursors is known or closed, all of them are lost. The archive knows nothing of the others,
        but their bids may be under way:

        1. A relay reads the first bids of a shard, and is suspended. Redis loses everything.
        2. If this shard began again in epoch 1, it would give the numbers of these bids to others.
        3. The relay goes on, and publishes them, in epoch 1.

        A closed shard counts even if the archive knows nothing of it: it went back to its very beginning, and no
        gateway opens it, since it has cursors.
        """
        missing = set(await self._without_cursors())
        async with self._archive.connection() as connection:
            rows = [row for row in await connection.fetch(self._sql.known_shards) if row["shard"] in missing]
        known = {row["shard"] for row in rows if row["is_known"] or row["shard"] in closed}
        if not known:
            return {}
        rows.sort(key=lambda row: row["shard"] not in known)  # first those with something to rebuild
        return {row["shard"]: max(row["next_epoch"], floors.get(row["shard"], 0) + 1) for row in rows}

    async def _items_by_shard(self, shards: dict[str, int]) -> dict[str, list[str]]:
        """The ids of all items that Redis must have. They fit into memory, at some hundred bytes each."""
        query = self._sql.read_item_ids.rstrip(";")
        found: dict[str, list[str]] = defaultdict(list)
        async with self._archive.transaction() as connection:
            async for row in connection.cursor(query, self._options.closed_keep_s, prefetch=10_000):
                shard = names.shard_of(row["item_id"])
                if shard in shards:
                    found[shard].append(row["item_id"])
        return found

    async def _read_rulings(self) -> None:
        """What was ruled on bidders for all items, as each shard must have it. What is archived after this is copied by
        the gateways, once the shard is open (``api_gateway/engine/rulings/spreader.py``)."""
        async with self._archive.transaction() as connection:
            async for row in connection.cursor(self._sql.read_house_rulings.rstrip(";"), prefetch=10_000):
                ruling = HouseRuling(row["approved"], row["blocked"], row["shard_epoch"], row["n"])
                field = field_of(row["user_id"], row["seller_id"])
                home = home_of(row["user_id"])
                if ruling.approved or ruling.blocked:
                    self._rulings[field] = ruling.encode()
                    self._at_home[home].append(field)
                elif row["is_recent"]:
                    self._taken_back[home][field] = ruling.encode()
            async for row in connection.cursor(self._sql.read_spending_limits.rstrip(";"), prefetch=10_000):
                generation = f"{row['shard_epoch']}|{row['n']}"
                self._limits[row["user_id"], row["currency"]] = SpendingLimit(row["max_amount"], generation)
        self.report.rulings = len(self._rulings) + len(self._limits)

    async def _write_accounts(self, shard: str, epoch: int, used: Mapping[tuple[str, str], int]) -> None:
        """The shard's part of all accounts, and those of the bidders who have their home here. A gateway opens these,
        when it has asked every shard.

        An account whose home was not lost may know less of this shard than what came back: a lead whose end was lost,
        and whose credit was given to others. The mark has the account counted anew, before the shard reports anything.
        """
        if self._claims is None:
            return
        writes = self._claims.writes(shard)
        credit: dict[str, str] = {}
        to_count: list[tuple[str, str]] = []
        for (user_id, currency), limit in self._limits.items():
            name, its_use = name_of(user_id, currency), used.get((user_id, currency), 0)
            lease = Lease(None if limit.most is None else 0, limit.generation, 0)
            credit |= {f"u:{name}": str(its_use), f"l:{name}": lease.encode()}
            if home_of(user_id) == shard:
                key = account_key(user_id, currency)
                writes.delete(key)
                most = "" if limit.most is None else str(limit.most)
                # Above every number of before: no gateway that slept meanwhile opens it with what it knows.
                number = str(epoch * _COUNTINGS_PER_EPOCH)
                fields = {"limit": most, "generation": limit.generation, "state": COUNTING, "counting": number}
                writes.hset(key, mapping=fields)
                writes.zadd(spreading_key(shard), {f"${name}": 0})
            elif its_use:
                credit[f"c:{name}"] = uuid4().hex
                to_count.append((user_id, currency))
        writes.hset(credit_key(shard), mapping=credit)
        await writes.execute()
        await self._have_counted(to_count)

    async def _have_counted(self, accounts: Sequence[tuple[str, str]]) -> None:
        """Have gateways count these accounts, where their homes have them; what is rebuilt later is counted anyway."""
        if not accounts:
            return
        pipeline = self._redis.pipeline(transaction=False)
        for user_id, currency in accounts:
            pipeline.exists(account_key(user_id, currency))
        found = [account for account, there in zip(accounts, await pipeline.execute(), strict=True) if there]
        pipeline = self._redis.pipeline(transaction=False)
        for user_id, currency in found:
            pipeline.zadd(spreading_key(home_of(user_id)), {f"${name_of(user_id, currency)}": 0})
        if found:
            await pipeline.execute()

    # ------------------------------------------------------------------------------------------------ the stream

    async def _drain_stream(self, started_s: float) -> None:
        """Store what the stream holds beyond the archive; and again once gateways have had time to notice the loss."""
        jetstream = self._jetstream
        if jetstream is None:
            self._tell("the stream is left out: what was not archived does not come back")
            return
        first = 1 if self._options.whole_stream else await first_unarchived(jetstream)
        first = await self._drain_from(jetstream, first)
        left_s = self._options.settle_s - (time.monotonic() - started_s)
        if left_s > 0 and not self._options.dry_run:
            self._tell(f"waiting {left_s:.0f} s for what gateways may still be publishing")
            await asyncio.sleep(left_s)
            await self._drain_from(jetstream, first)
        self._tell(f"the stream had {self.report.from_stream} events that were not archived")

    async def _drain_from(self, jetstream: JetStreamContext, first: int) -> int:
        """Store what the stream has from this sequence number on. Returns the number after the last one."""
        async for page in read_backlog(jetstream, first):
            if self._options.dry_run:
                self.report.from_stream += sum(len(d.batch.events) for d in page if d.batch is not None)
            else:
                stored = await self._archive.store(page)
                self.report.from_stream += stored.bids + stored.events
                self.report.put_aside += len(stored.dead_letters)
            first = max(first, _last_seq(page) + 1)
        return first

    # ------------------------------------------------------------------------------------------------- one shard

    async def _recover_shard(self, shard: str, epoch: int, items: Sequence[str]) -> None:
        if self._claims is not None:
            writes = self._claims.writes(shard)
            writes.delete(deadlines_key(shard), closed_key(shard), rulings_key(shard), spreading_key(shard))
            writes.delete(credit_key(shard))
            # What a home is rebuilt with is spread once more: shards that were not lost may have missed the last of it.
            taken_back = self._taken_back.get(shard, {})
            writes.hset(rulings_key(shard), mapping=self._rulings | taken_back)
            writes.zadd(spreading_key(shard), dict.fromkeys([*self._at_home.get(shard, ()), *taken_back], 0))
            await writes.execute()
        verdicts_before, items_before = self.report.verdicts, self.report.items
        limited = self._limits.keys()
        writer = ItemWriter(self._redis, self._archive, shard, self._claims, self.report, limited=limited)
        for step in _steps(items, _ITEMS_PER_STEP):
            await writer.write(step, epoch)
            crash_point("recover.items")
        await self._write_accounts(shard, epoch, writer.used)
        written = self.report.items - items_before
        if self._claims is not None:
            crash_point("recover.opening")
            await self._claims.open(shard, epoch)
            async with self._archive.transaction() as connection:
                verdicts = self.report.verdicts - verdicts_before
                await connection.execute(self._sql.end_recovery, shard, epoch, written, verdicts)
        self.report.shards.append(shard)
        done = "would get" if self._options.dry_run else "is back in"
        self._tell(f"{shard}: {done} epoch {epoch}, {written} items")

    async def _leftovers(self, shard: str, items: Sequence[str], closed: Mapping[str, int]) -> str | None:
        """Why a shard without cursors must not be rebuilt: it was lost since this run began, or Redis still has
        something of it that no earlier run wrote."""
        stale = (await read_cursors(self._redis, [shard]))[shard].stale
        if shard not in self._missing or (stale is not None and closed.get(shard) != stale):
            return "was lost or closed a moment ago; run recover again"
        if shard == self._would_close or stale is not None or await self._redis.exists(rebuilding_key(shard)):
            return None  # what a closed shard has is archived, and will be discarded
        if await self._redis.exists(outbox_key(shard)):
            return "Redis still has its outbox; only its cursors are gone, so this was no loss of data"
        for step in _steps(items, _EXISTS_PER_STEP):
            there = await self._redis.exists(*map(item_key, step))
            if there:
                return f"Redis still has {there} of its items; only its cursors are gone"
        return None


def _last_seq(page: Sequence[Delivery]) -> int:
    return max(delivery.stream_seq for delivery in page)


def _steps(items: Sequence[str], size: int) -> list[Sequence[str]]:
    return [items[at : at + size] for at in range(0, len(items), size)]
