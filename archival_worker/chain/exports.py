"""Exports closed items whose chain is complete, each until it is confirmed.

The table ``exports`` says what is due (the chainer writes it) and how it ended. An attempt is claimed for some minutes,
so several archivers share the work, and an export whose archiver dies is tried again. Exporting twice gives the same
file under the same name.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, ParamSpec, TypeVar

import asyncpg

from archival_worker.chain.blocking import BlockingCalls
from archival_worker.chain.export_file import ExportWriter
from archival_worker.chain.hashes import NOWHERE, Version
from archival_worker.chain.sinks import Digest, Sink, chunks_of, digest_of
from archival_worker.errors import ArchiveUnavailable, ExportFailed
from archival_worker.metrics import Metrics
from archival_worker.store.database import connection_of
from archival_worker.store.queries import load_chain_queries
from shared import names
from shared.pacing.backoff import Backoff, set_within

logger = logging.getLogger(__name__)

_ERROR_TEXT_MAX: Final = 500

_REMOVE_S: Final = 10.0
"""How long an attempt waits until its temporary file is removed."""

P = ParamSpec("P")
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """Bounds and intervals.

    Attributes:
        look_every_s: how often to look for due exports without being woken.
        page_rows: events in memory at once.
        attempt_s: bound of one attempt; the claim lasts twice as long.
        pause_first_s, pause_most_s: the first and the longest pause after failures; they double, with jitter.
        stuck_tries: from how many attempts on an open export is an alarm.
        count_every_s: how often to count for the alarm.
    """

    look_every_s: float = 5.0
    page_rows: int = 5_000
    attempt_s: float = 600.0
    pause_first_s: float = 1.0
    pause_most_s: float = 300.0
    stuck_tries: int = 3
    count_every_s: float = 15.0


@dataclass(frozen=True, slots=True)
class _Job:
    """A claimed attempt."""

    item_id: str
    place: Version
    head: bytes
    tries: int

    @property
    def key(self) -> str:
        """The name of the file, the same whenever the same events are exported."""
        return key_of(self.item_id, self.place)


def key_of(item_id: str, place: Version) -> str:
    """``items/<shard's two digits>/<item>/<epoch>-<seq>.jsonl.gz``."""
    return f"items/{names.shard_of(item_id)[1:]}/{item_id}/{place.epoch}-{place.seq}.jsonl.gz"


def pause_after(tries: int, options: ExportOptions) -> float:
    """Seconds before the next attempt, after ``tries`` failed ones (at least 1); without the jitter."""
    return min(options.pause_most_s, options.pause_first_s * 2.0 ** min(tries - 1, 32))


class Exporter:
    """Several may run, in as many processes."""

    def __init__(
        self,
        pool: asyncpg.Pool,
        sink: Sink,
        metrics: Metrics,
        options: ExportOptions = ExportOptions(),
    ) -> None:
        self._pool = pool
        self._sink = sink
        self._metrics = metrics
        self._options = options
        self._sql = load_chain_queries()
        self._calls = BlockingCalls()
        # The last export that was tried.
        self._tried = ""
        self._wake = asyncio.Event()
        self._count_at_s = 0.0
        self.open = 0
        """Exports that are due or failing, when they were last counted."""
        self.alarms: dict[str, str] = {}
        """The alarm, while exports keep failing; empty otherwise."""

    def wake(self) -> None:
        """Look for due exports now."""
        self._wake.set()

    async def run(self) -> None:
        """Export until cancelled."""
        backoff = Backoff(most_s=30.0)
        while True:
            self._wake.clear()
            try:
                while await self.once():
                    await self._count()
                await self._count()
                backoff.succeeded()
            except ArchiveUnavailable as error:
                self._metrics.failures_by["exports"] += 1
                logger.warning("cannot look for exports: %s", error)
                await asyncio.sleep(backoff.failed())
                continue
            await set_within(self._wake, self._options.look_every_s)

    async def once(self) -> bool:
        """Try the export that has been due for longest. Returns False if none is due, or if the call of a former
        attempt has not returned: then other archivers go on.

        Raises:
            ArchiveUnavailable: PostgreSQL cannot be asked now.
        """
        if self._calls.is_running:
            return False
        async with connection_of(self._pool) as connection:
            row = await connection.fetchrow(self._sql.claim_export, 2 * self._options.attempt_s)
        if row is None:
            return False
        job = _Job(row["item_id"], Version(row["epoch"], row["seq"]), row["head"], row["tries"])
        self._tried = job.item_id
        try:
            async with asyncio.timeout(self._options.attempt_s):
                digest = await self._attempt(job)
        except (ExportFailed, ArchiveUnavailable, OSError, TimeoutError) as error:
            # Errors of PostgreSQL too: an item that it cannot read in time must not fail unnoticed. If PostgreSQL is
            # unreachable, the failure cannot be written down either, and the claim runs out.
            await self._failed(job, str(error) or type(error).__name__)
        else:
            async with connection_of(self._pool) as connection:
                await connection.execute(
                    self._sql.confirm_export, job.item_id, *job.place, job.key, digest.size, digest.sha256
                )
            self._metrics.exports += 1
            logger.info("exported %s up to %s: %s, %d bytes", job.item_id, job.place, job.key, digest.size)
        return True

    async def _failed(self, job: _Job, reason: str) -> None:
        self._metrics.export_failures += 1
        pause_s = pause_after(job.tries, self._options) * random.uniform(0.5, 1.0)
        logger.warning("export of %s, attempt %d: %s; next in %.1f s", job.item_id, job.tries, reason, pause_s)
        text = reason.replace("\0", "").encode(errors="replace").decode()[:_ERROR_TEXT_MAX]
        async with connection_of(self._pool) as connection:
            await connection.execute(self._sql.fail_export, job.item_id, *job.place, text, pause_s)

    async def _attempt(self, job: _Job) -> Digest:
        """Write a temporary file, store it in the sink, return once it is confirmed."""
        scratch = _Scratch()
        try:
            await self._write(job, await self._on_file(scratch.open))
            await self._on_file(scratch.file.close)
            digest = await self._on_file(_digest_of_file, scratch.path)
            await self._calls.run(self._sink.put, scratch.path, job.key, digest)
        finally:
            await self._remove(scratch)
        return digest

    async def _remove(self, scratch: _Scratch) -> None:
        """Remove the temporary file, never on the event loop: to close it waits for a call that is writing to it, and a
        disk that hangs would hold up everything."""
        if self._calls.is_running:
            self._calls.run_afterwards(scratch.remove)
            return
        # If it does not return, nothing is tried until it has.
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_REMOVE_S):
                await self._calls.run(scratch.remove)

    async def _write(self, job: _Job, file: BinaryIO) -> None:
        async with (
            connection_of(self._pool) as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            state = await connection.fetchrow(self._sql.read_item, job.item_id)
            if state is None or Version(state["epoch"], state["seq"]) != job.place:
                raise ExportFailed(f"{job.item_id} is not at {job.place} any more; its newer state will be exported")
            writer = ExportWriter(file, job.item_id, job.place, state)
            place = NOWHERE
            while True:
                rows = await connection.fetch(self._sql.read_rows, job.item_id, *place, self._options.page_rows)
                if not rows:
                    break
                place = Version(rows[-1]["epoch"], rows[-1]["seq"])
                # Compressing takes longer than reading, and the write path shares this event loop.
                await self._on_file(writer.add, rows)
            await self._on_file(writer.finish)
        if writer.head.hash != job.head:
            raise ExportFailed(f"the chain of {job.item_id} was another one when it was closed; see `bidding audit`")

    async def _on_file(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run in a thread. An error of the disk must not count as one of the database, whose connection is open
        meanwhile.

        Raises:
            ExportFailed: the file cannot be written, or what ``work`` raises itself.
        """
        try:
            return await self._calls.run(work, *args, **kwargs)
        except OSError as error:
            raise ExportFailed(f"the file of the export cannot be written here: {error}") from error

    async def _count(self) -> None:
        now_s = asyncio.get_running_loop().time()
        if now_s < self._count_at_s:
            return
        self._count_at_s = now_s + self._options.count_every_s
        async with connection_of(self._pool) as connection:
            row = await connection.fetchrow(self._sql.count_exports, self._options.stuck_tries)
        self.open = row["open"]
        alarms = {"exports": f"{row['stuck']} keep failing, such as {row['example']}"} if row["stuck"] else {}
        if self._calls.is_running:
            # Attempts are counted between two of them, so this is a call of one that was given up.
            alarms = {
                "exports": f"none is tried here: {self._tried} was given up after {self._options.attempt_s:g} s, and "
                "its call to the disk or to S3 has not returned"
            }
        if alarms and not self.alarms:
            logger.error("exports: %s", alarms["exports"])
        self.alarms = alarms


class _Scratch:
    """The temporary file of one attempt. Each method blocks."""

    def __init__(self) -> None:
        self._folder: str | None = None

    def open(self) -> BinaryIO:
        """Make it, empty. Raises OSError."""
        self._folder = tempfile.mkdtemp(prefix="bidding-export-")
        self.path = Path(self._folder) / "export.jsonl.gz"
        self.file = self.path.open("wb")
        return self.file

    def remove(self) -> None:
        """Remove what there is of it."""
        if self._folder is None:
            return
        # To close it writes what is left in its buffer.
        with contextlib.suppress(AttributeError, OSError):
            self.file.close()
        shutil.rmtree(self._folder, ignore_errors=True)


def _digest_of_file(path: Path) -> Digest:
    with path.open("rb") as file:
        return digest_of(chunks_of(file))
