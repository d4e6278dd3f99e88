"""The loop: pull, collect, store, acknowledge. At-least-once from the stream, exactly once in the tables.

A session lasts while both PostgreSQL and JetStream work. When either fails, the worker gives its messages back to the
stream, pauses (longer each time, with jitter) and begins a new session. It keeps no message across sessions: what was
not acknowledged comes again, and the archive knows what it has stored.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from nats.aio.client import Client
from nats.errors import Error as NatsError

from archival_worker.consume.batcher import Batcher, BatchLimits, Pace, Pull, Wait, Write
from archival_worker.consume.deliveries import Delivery, read_delivery
from archival_worker.consume.traces import trace_rows
from archival_worker.errors import ArchiveUnavailable
from archival_worker.metrics import Metrics
from archival_worker.outbox.cursors import CursorCopier
from archival_worker.store.archive import Archive, Stored
from shared import names
from shared.clients.nats import StreamLimits, StreamUnavailable, ensure_stream
from shared.pacing.backoff import Backoff, set_within
from shared.streams.puller import Pulled, Puller, PullOptions, ensure_consumer
from shared.tracing.spans import Tracer

logger = logging.getLogger(__name__)

_LETTERS_LOGGED_MAX: Final = 20
_SOUND_AFTER_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class WorkerOptions:
    """Bounds of the worker's parts."""

    batch: BatchLimits = field(default_factory=BatchLimits)
    source: PullOptions = field(default_factory=partial(PullOptions, names.ARCHIVER_DURABLE))
    stream: StreamLimits = field(default_factory=StreamLimits)


async def _nothing() -> None:
    return


def _to_nobody(item_ids: Iterable[str]) -> None:
    return


class _LatePull:
    """A pull that is made in the middle of a write: when PostgreSQL gets all bids of the batch and works on them.

    The next batch then arrives, and is decoded, while the worker waits for that. If the pull came first, the messages
    would be there during the short statements before, each of which would wait for the decoding of some of them, with
    PostgreSQL idle; and there would be nothing to do during the long one.

    When the context is left, it has been made, or the batcher knows that it was not: the write failed before that
    moment, or the worker is to stop and would give everything back.
    """

    def __init__(
        self, source: Puller, batcher: Batcher[Delivery], messages: int, *, is_stopping: Callable[[], bool]
    ) -> None:
        self._source = source
        self._batcher = batcher
        self._messages = messages
        self._is_stopping = is_stopping
        self._is_made = False

    async def make(self) -> None:
        """Ask the stream, unless that was done. Raises nothing: a stream that is away must not undo what PostgreSQL
        can store. The worker's next look at the stream finds that out."""
        if self._is_made:
            return
        self._is_made = True
        if self._is_stopping():
            self._batcher.pull_ended()
            return
        try:
            await self._source.pull(self._messages)
        except StreamUnavailable as error:
            logger.debug("no pull during the write: %s", error)
            self._batcher.pull_ended()

    async def __aenter__(self) -> None:
        # The batcher expects this pull from now on. "Over" of the one before must not end it.
        self._source.leave_request()

    async def __aexit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is None:
            await self.make()
        elif not self._is_made:
            # The session ends, and nothing is to come any more.
            self._batcher.pull_ended()


class Worker:
    """Moves messages from the stream to the archive until asked to stop.

    Several may run at once, in as many processes: JetStream hands each message to one of them at a time.
    """

    def __init__(
        self,
        connect: Callable[[], Awaitable[Client]],
        archive: Archive,
        cursors: CursorCopier,
        metrics: Metrics,
        options: WorkerOptions | None = None,
        *,
        after_commit: Callable[[], Awaitable[None]] = _nothing,
        on_items: Callable[[Iterable[str]], None] = _to_nobody,
        tracer: Tracer | None = None,
    ) -> None:
        """
        Args:
            connect: gives a connected client or raises StreamUnavailable.
            after_commit: awaited between COMMIT and acknowledgement, the worst instant for a crash.
            on_items: gets the items of each committed batch, each once.
            tracer: of sampled bids; None where none are.
        """
        self._connect = connect
        self._archive = archive
        self._cursors = cursors
        self._metrics = metrics
        self._options = options = options or WorkerOptions()
        self._after_commit = after_commit
        self._on_items = on_items
        self._tracer = tracer
        self._stop = asyncio.Event()
        self._wake = asyncio.Event()
        self._backoff = Backoff()
        self._pace = Pace(options.batch.rows_max)

    def request_stop(self) -> None:
        """Make :meth:`run` return: a batch that is being written is finished and acknowledged, the rest given back."""
        self._stop.set()
        self._wake.set()

    async def run(self) -> None:
        """Work until asked to stop. Waits for failed servers without limit."""
        loop = asyncio.get_running_loop()
        while not self._stop.is_set():
            started_s = loop.time()
            try:
                await self._session()
            except ArchiveUnavailable as error:
                await self._pause("archive", error, loop.time() - started_s)
            except StreamUnavailable as error:
                await self._pause("stream", error, loop.time() - started_s)

    async def _pause(self, where: str, error: Exception, lasted_s: float) -> None:
        if lasted_s > _SOUND_AFTER_S:
            self._backoff.succeeded()
        self._metrics.failures_by[where] += 1
        pause_s = self._backoff.failed()
        logger.warning("%s; next attempt in %.1f s", error, pause_s)
        await set_within(self._stop, pause_s)

    async def _session(self) -> None:
        """From the first check of the servers to the first failure, or to the request to stop."""
        # Before anything is pulled: a message that cannot be stored is better left in the stream.
        await self._archive.check_writable()
        client = await self._connect()
        jetstream = client.jetstream()
        try:
            await ensure_stream(jetstream, self._options.stream)
        except (NatsError, OSError, TimeoutError) as error:
            raise StreamUnavailable(f"the stream: {type(error).__name__}: {error}") from error
        await ensure_consumer(jetstream, self._options.source)

        loop = asyncio.get_running_loop()
        batcher: Batcher[Delivery] = Batcher(self._options.batch, self._pace)

        def on_message(message: Pulled) -> None:
            delivery = read_delivery(*message)
            if batcher.received(delivery, delivery.rows, loop.time()):
                self._wake.set()

        def on_ended() -> None:
            batcher.pull_ended()
            self._wake.set()

        source = Puller(client, self._options.source, on_message=on_message, on_ended=on_ended)
        await source.open()
        try:
            logger.info("reading the stream")
            self._metrics.consuming = True
            await self._consume(source, batcher)
        except (ArchiveUnavailable, StreamUnavailable):
            await self._end(source, batcher)
            raise
        else:
            await self._end(source, batcher)
        finally:
            self._metrics.consuming = False

    async def _consume(self, source: Puller, batcher: Batcher[Delivery]) -> None:
        loop = asyncio.get_running_loop()
        while not self._stop.is_set():
            source.check(pulling=batcher.pulling)
            match batcher.next(loop.time()):
                case Pull(messages=count) if batcher.is_full:
                    # The write is begun here and now: until the pull is made, silence is no sign of a failure.
                    effect = batcher.next(loop.time())
                    assert isinstance(effect, Write), "a full batch is written at once"
                    pull = _LatePull(source, batcher, count, is_stopping=self._stop.is_set)
                    await self._write(source, effect.messages, pull)
                case Pull(messages=count):
                    await source.pull(count)
                case Write(messages=deliveries):
                    await self._write(source, deliveries)
                case Wait(until_s=until_s):
                    # Nothing is awaited between next() and this line, so no delivery is missed.
                    self._wake.clear()
                    due_s = source.silent_at_s if until_s is None else min(until_s, source.silent_at_s)
                    await set_within(self._wake, max(0.0, due_s - loop.time()))

    async def _write(self, source: Puller, deliveries: list[Delivery], pull: _LatePull | None = None) -> None:
        loop = asyncio.get_running_loop()
        started_s, started_ns = loop.time(), time.time_ns()
        try:
            if pull is None:
                stored = await self._archive.store(deliveries)
            else:
                async with pull:
                    stored = await self._archive.store(deliveries, meanwhile=pull.make)
        except ArchiveUnavailable:
            self._pace.failed(sum(delivery.rows for delivery in deliveries))
            self._metrics.given_back += len(deliveries)
            await source.give_back(delivery.reply for delivery in deliveries)
            raise
        self._metrics.wrote(len(deliveries), stored, loop.time() - started_s)
        if self._tracer is not None:
            trace_rows(self._tracer, deliveries, started_ns, len(stored.dead_letters))
        self._backoff.succeeded()
        self._pace.succeeded()
        await self._after_commit()
        _report(stored)
        # The cursor first: this only notes it, and it must be copied even if the acknowledgement fails.
        self._cursors.offer(stored.positions)
        self._on_items({delivery.batch.item_id for delivery in deliveries if delivery.batch is not None})
        await source.acknowledge(delivery.reply for delivery in deliveries)
        self._metrics.acks += len(deliveries)

    async def _end(self, source: Puller, batcher: Batcher[Delivery]) -> None:
        """Let an open pull run out and give back what is not written, so that nobody waits for the ack wait."""
        loop = asyncio.get_running_loop()
        with contextlib.suppress(StreamUnavailable):
            while batcher.pulling:
                source.check(pulling=True)
                self._wake.clear()
                await set_within(self._wake, max(0.0, source.silent_at_s - loop.time()))
        await source.close()
        unwritten = batcher.drain()
        self._metrics.given_back += len(unwritten)
        await source.give_back(delivery.reply for delivery in unwritten)


def _report(stored: Stored) -> None:
    """Log every dead letter; of thousands at once log the first ones and the number of the others."""
    for reason, detail in stored.dead_letters[:_LETTERS_LOGGED_MAX]:
        logger.error("dead letter, %s: %s", reason, detail)
    if stored.unknown:
        types = ", ".join(sorted(set(stored.unknown))[:_LETTERS_LOGGED_MAX])
        logger.warning(
            "%d events of unknown types stored whole (%s); is this version older?", len(stored.unknown), types
        )
    if len(stored.dead_letters) > _LETTERS_LOGGED_MAX:
        logger.error("and %d more dead letters in this batch", len(stored.dead_letters) - _LETTERS_LOGGED_MAX)
