"""Retires items: reads their exports back, and removes their logs from the archive.

For each item, in this order; a run that is killed anywhere is taken up by the next one:

1. The export is read back: it has the bytes that were confirmed, and its chain and its counts fit. The log in the
   archive is audited too: one that was tampered with is evidence, and stays.
2. PostgreSQL notes that the item is being looked at. From now on no gateway brings it back into Redis for a void.
3. Redis says that it does not have the item, and that all that its shard had decided is archived. Its fence becomes
   another one, so that a gateway that read the archive before 2 does not write the item there.
4. One transaction that has locked the item's shard, as archivers and `recover` do: the item is as it was at 1, no
   recovery has begun since 3, and the log has as many events as the export. It is retired now. Archivers store nothing
   of it any more, and everybody is told where its log is.
5. Its rows are removed, a few at a time.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

from redis.asyncio import Redis

from archival_worker.chain.audit import audit_on
from archival_worker.chain.export_file import Verified
from archival_worker.chain.read_back import Exported, read_back
from archival_worker.chain.sinks import ReadableSink
from archival_worker.errors import ExportFailed, RetentionRefused
from archival_worker.retiring.in_redis import InRedis
from archival_worker.retiring.options import RetentionOptions, RetentionReport, Stays
from archival_worker.store.archive import Archive
from archival_worker.store.database import Connection
from archival_worker.store.queries import load_chain_queries, load_queries, load_retention_queries
from archival_worker.store.retired import Span, flattened
from shared import names
from shared.archive_reads.statements import statements
from shared.crash_points import crash_point

logger = logging.getLogger(__name__)

_READ_CLOSED: Final = statements("closed")["read_closed"]


@dataclass(frozen=True, slots=True)
class _Candidate:
    """An item whose export and log are as they should be."""

    exported: Exported
    verified: Verified

    @property
    def item_id(self) -> str:
        return self.exported.item_id


class Retirement:
    """One run. No other may be under way."""

    def __init__(
        self,
        archive: Archive,
        redis: Redis,
        sink: ReadableSink,
        options: RetentionOptions,
        *,
        tell: Callable[[str], object] = lambda _: None,
    ) -> None:
        """``tell`` takes lines about the progress."""
        self._archive = archive
        self._redis = InRedis(redis, lag_s=options.lag_s)
        self._sink = sink
        self._options = options
        self._tell = tell
        self._sql = load_retention_queries()
        self._write_sql = load_queries()
        self._relax = load_chain_queries().relax
        self._report = RetentionReport()
        self._told_at_s = 0.0
        self._is_stopping = False

    def request_stop(self) -> None:
        """Return soon: the item at hand is left as it is, and the next run goes on with it."""
        self._is_stopping = True

    async def run(self) -> RetentionReport:
        """Look at all items, and retire those that may.

        Raises:
            RetentionRefused: another run is under way.
            ArchiveUnavailable, RedisError, OSError, TimeoutError: a server cannot be asked; what is retired stays so.
        """
        async with self._alone() as connection:
            if self._options.remove:
                await self._resume()
            async for rows in self._old():
                for at in range(0, len(rows), self._options.page_items):
                    page = rows[at : at + self._options.page_items]
                    await self._page(connection, page[: self._options.items_max - self._report.retired])
                    self._progress()
                    if self._is_over():
                        return self._report
        return self._report

    def _is_over(self) -> bool:
        self._report.stopped = self._is_stopping or self._report.retired >= self._options.items_max
        return self._report.stopped

    @asynccontextmanager
    async def _alone(self) -> AsyncIterator[Connection]:
        """The connection that holds the lock of the run. Items retire on this connection, so never without the lock."""
        async with self._archive.connection() as connection:
            if not await connection.fetchval(self._sql.lock_run):
                raise RetentionRefused("another run of the retention is under way")
            yield connection

    async def _resume(self) -> None:
        """Remove what a run that was killed has left."""
        after = ""
        while not self._is_over():
            async with self._archive.connection() as connection:
                rows = await connection.fetch(self._sql.find_open, after, self._options.page_items)
            if not rows:
                return
            for row in rows:
                after = row["item_id"]
                exported = Exported.of(row)
                verified = await self._read_back(exported)
                if verified is not None and await self._remove(exported.item_id):
                    self._count(verified)
                    self._report.resumed += 1
                if self._is_over():
                    return

    async def _old(self) -> AsyncIterator[Sequence[Any]]:
        """The old items, window by window."""
        after, options = "", self._options
        while True:
            async with self._archive.connection() as connection:
                rows = await connection.fetch(self._sql.find_old, after, options.window, options.older_than_s)
            self._report.looked_at += len(rows)
            yield [row for row in rows if row["is_old"]]
            if len(rows) < options.window:
                return
            after = rows[-1]["item_id"]

    async def _page(self, connection: Connection, rows: Sequence[Any]) -> None:
        exported = [Exported.of(row) for row in rows if row["is_exported"]]
        self._report.stays[Stays.NOT_EXPORTED] += len(rows) - len(exported)
        subjects = {names.subject_of(each.item_id): each.item_id for each in exported}
        with_letters = await connection.fetch(self._sql.find_letters, list(subjects))
        blamed = {subjects[row["subject"]] for row in with_letters}
        self._report.stays[Stays.HAS_LETTERS] += len(blamed)
        sound = [each for each in exported if each.item_id not in blamed]
        in_redis = await self._redis.stays([each.item_id for each in sound]) if sound else {}
        self._report.stays.update(in_redis.values())
        at_once = asyncio.Semaphore(self._options.at_once)
        wanted = [each for each in sound if each.item_id not in in_redis]
        for candidate in await asyncio.gather(*(self._checked(each, at_once) for each in wanted)):
            if candidate is None or self._is_stopping:
                continue
            if not self._options.remove or await self._retire(connection, candidate):
                self._count(candidate.verified)

    def _count(self, verified: Verified) -> None:
        self._report.retired += 1
        self._report.bids += verified.bids
        self._report.events += verified.events

    async def _checked(self, exported: Exported, at_once: asyncio.Semaphore) -> _Candidate | None:
        """The item, if its export can be read back and its log is sound."""
        async with at_once:
            if self._is_stopping:
                return None
            verified = await self._read_back(exported)
            if verified is None:
                return None
            async with (
                self._archive.connection() as connection,
                connection.transaction(isolation="repeatable_read", readonly=True),
            ):
                report = await audit_on(connection, exported.item_id)
        if report.finding is not None or report.head != exported.head.hash.hex():
            self._fault(exported.item_id, f"its log in the archive does not fit: {report.text()}")
            return None
        return _Candidate(exported, verified)

    async def _read_back(self, exported: Exported) -> Verified | None:
        try:
            return await asyncio.to_thread(read_back, self._sink, exported)
        except (ExportFailed, OSError) as error:
            self._fault(exported.item_id, str(error))
            return None

    def _fault(self, item_id: str, what: str) -> None:
        self._report.fault(item_id, what)
        logger.error("item %s stays: %s", item_id, what)

    async def _retire(self, connection: Connection, candidate: _Candidate) -> bool:
        item_id = candidate.item_id
        async with self._archive.safely(connection):
            if not await connection.fetchval(self._sql.check, *self._noted(candidate)):
                return False  # it is retired already
        epoch = await self._redis.let_retire(item_id)
        crash_point("retire.checked")
        stays = epoch if isinstance(epoch, Stays) else await self._begin(connection, candidate, epoch)
        if stays is not None:
            self._report.stays[stays] += 1
            async with self._archive.safely(connection):
                await connection.execute(self._sql.let_stay, item_id)
            return False
        crash_point("retire.begun")
        return await self._remove(item_id)

    def _noted(self, candidate: _Candidate) -> tuple[Any, ...]:
        exported, verified = candidate.exported, candidate.verified
        return (
            exported.item_id,
            *exported.head.place,
            exported.head.hash,
            self._sink.place,
            exported.key,
            exported.digest.size,
            exported.digest.sha256,
            verified.events,
            verified.bids,
            self._options.actor,
        )

    async def _begin(self, connection: Connection, candidate: _Candidate, epoch: int) -> Stays | None:
        """Retire the item, in one transaction; or say why it stays.

        Args:
            epoch: of its shard, when Redis did not have it.
        """
        item_id, shard = candidate.item_id, names.shard_of(candidate.item_id)
        async with self._archive.safely(connection):
            await connection.fetch(self._write_sql.lock_cursors, [shard])
            fences = await connection.fetch(self._write_sql.read_fences, [shard])
            if any(row["epoch"] > epoch for row in fences):
                return Stays.SHARD_CLOSED
            rows = await connection.fetch(self._sql.read_spans, item_id)
            told = await connection.fetchrow(_READ_CLOSED, [item_id], [shard])
            if told is None or sum(row["events"] for row in rows) != candidate.verified.events:
                return Stays.CHANGED
            spans = flattened(Span(row["epoch"], row["first"], row["last"]) for row in rows)
            turns = (told["extensions"], told["shift_us"], told["moved_us"])
            if await connection.fetchval(self._sql.begin_retiring, item_id, spans, *turns) is None:
                return Stays.CHANGED
            await connection.execute(self._sql.count_retired, shard)
            return None

    async def _remove(self, item_id: str) -> bool:
        """Remove the rows of an item that is retired. False where somebody stopped this before its end."""
        loop = asyncio.get_running_loop()
        while not self._is_stopping:
            began_s, most = loop.time(), self._options.rows_per_step
            async with self._archive.connection() as connection, connection.transaction():
                # If a crash undoes this COMMIT, the next run removes the rows again. So it need not wait for the disk.
                await connection.execute(self._relax)
                removed = await connection.fetchval(self._sql.remove_log, item_id, most)
            self._report.rows += removed
            if removed < most:
                return True
            crash_point("retire.removing")
            self._progress()
            await asyncio.sleep((loop.time() - began_s) * self._options.rest_ratio)
        return False

    def _progress(self) -> None:
        now_s = asyncio.get_running_loop().time()
        if now_s - self._told_at_s < self._options.tell_every_s:
            return
        if self._told_at_s:
            did = "retired" if self._options.remove else "could retire"
            report = self._report
            self._tell(f"… {report.looked_at} items looked at, {report.retired} {did}, {report.rows} rows removed")
        self._told_at_s = now_s
