"""The composition root: opens what the worker needs, joins it, runs it, and closes everything in reverse."""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

import asyncpg

from archival_worker.chain.chainer import Chainer
from archival_worker.chain.exports import Exporter
from archival_worker.chain.sinks import open_sink
from archival_worker.consume.batcher import BatchLimits
from archival_worker.consume.retention import Retention
from archival_worker.consume.worker import Worker, WorkerOptions
from archival_worker.eviction.evictor import EvictionOptions, Evictor
from archival_worker.http import HttpServer, Probes, make_app, make_server
from archival_worker.metrics import Metrics
from archival_worker.outbox.cursors import CursorCopier
from archival_worker.outbox.missing_entries import MissingEntries
from archival_worker.settings import Settings
from archival_worker.store.archive import Archive
from shared import names
from shared.aws.cloudwatch import Distribution, Gauge, Metric, Total
from shared.aws.presence import presence
from shared.clients.nats import NatsLink
from shared.clients.postgres import open_postgres
from shared.clients.redis import open_redis
from shared.crash_points import crash_point
from shared.streams.puller import PullOptions
from shared.supervision import loudly
from shared.tracing.opening import open_tracer

logger = logging.getLogger(__name__)

_NAME: Final = "archival-worker"
_CLOSE_TIMEOUT_S: Final = 5.0
_COPY_TIMEOUT_S: Final = 3.0


@dataclass(frozen=True, slots=True)
class Service:
    """The parts that run, joined."""

    worker: Worker
    cursors: CursorCopier
    retention: Retention
    missing_entries: MissingEntries
    chainer: Chainer
    chains: bool
    exporter: Exporter | None
    evictor: Evictor
    http: HttpServer
    listener: socket.socket


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Service]:
    """Open everything. No server needs to run yet: a connection is made when it is first needed.

    Raises:
        OSError: the port for health and metrics is taken.
        ExportsMisconfigured: the settings of the exports cannot work.
    """
    async with AsyncExitStack() as stack:
        listener = stack.enter_context(_listen(settings.archiver_host, settings.archiver_port))
        tracer = await stack.enter_async_context(open_tracer(_NAME))
        redis = open_redis(settings.redis_url, connections_max=4)
        stack.push_async_callback(redis.aclose)
        pool = await open_postgres(
            settings.postgres_url, name=_NAME, connections_max=6, timeout_s=settings.archiver_postgres_timeout_s
        )
        stack.push_async_callback(_close_pool, pool)
        link = NatsLink(settings.nats_url, name=_NAME)
        stack.push_async_callback(link.close)

        metrics = Metrics()
        sink = open_sink(
            folder=settings.export_dir,
            bucket=settings.export_s3_bucket,
            endpoint_url=settings.aws_endpoint_url,
            timeout_s=settings.export_timeout_s,
        )
        exporter = None
        if sink is not None:
            stack.callback(sink.close)
            exporter = Exporter(pool, sink, metrics)
        chainer = Chainer(pool, metrics, on_due=exporter.wake if exporter is not None else _nobody)
        archive = Archive(pool)
        cursors = CursorCopier(redis, archive.positions, metrics)
        options = WorkerOptions(
            batch=BatchLimits(rows_max=settings.archiver_batch_rows, linger_s=settings.archiver_linger_ms / 1_000),
            source=PullOptions(names.ARCHIVER_DURABLE, ack_wait_s=settings.archiver_ack_wait_s),
        )
        missing_entries = MissingEntries(
            redis, link.connected, archive.positions, look_every_s=settings.archiver_holes_look_s
        )
        evictor = Evictor(pool, redis, metrics, EvictionOptions(keep_s=settings.closed_keep_s))
        probes = Probes(redis, link, archive)

        async def figures() -> Sequence[Metric]:
            return await _figures(probes, metrics)

        await stack.enter_async_context(presence("archival_worker", settings.archiver_port, figures))
        yield Service(
            worker=Worker(
                link.connected,
                archive,
                cursors,
                metrics,
                options,
                after_commit=_committed,
                on_items=chainer.offer,
                tracer=tracer,
            ),
            cursors=cursors,
            retention=Retention(link.connected, metrics),
            missing_entries=missing_entries,
            chainer=chainer,
            chains=settings.archiver_chain,
            exporter=exporter,
            evictor=evictor,
            http=make_server(make_app(probes, cursors, missing_entries, metrics, chainer, exporter, evictor)),
            listener=listener,
        )


async def _figures(probes: Probes, metrics: Metrics) -> Sequence[Metric]:
    """The figures for CloudWatch, where it is used. One that a server cannot give now is left out."""
    report = await probes.ask()
    known = {"ConsumerLag": report.lag, "DeadLetters": report.dead_letters}
    gauges = [Gauge(name, value) for name, value in known.items() if value is not None]
    totals = Total("BidsArchived", metrics.bids), Total("EventsArchived", metrics.events)
    return [*gauges, *totals, Distribution("WriteSeconds", metrics.writes.middles())]


def _nobody() -> None:
    return


async def _committed() -> None:
    crash_point("archive.committed")


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise OSError(error.errno, f"cannot listen on {host}:{port} (ARCHIVER_PORT): {error.strerror}") from error
    return listener


async def _close_pool(pool: asyncpg.Pool) -> None:
    try:
        async with asyncio.timeout(_CLOSE_TIMEOUT_S):
            await pool.close()
    except TimeoutError:
        pool.terminate()


async def run(settings: Settings) -> None:
    """Archive until SIGTERM or SIGINT; then finish the running batch, acknowledge it, and return.

    Raises:
        OSError: the port for health and metrics is taken.
        ExportsMisconfigured: the settings of the exports cannot work.
        ExceptionGroup: a part failed for another reason than a server that is away: a defect.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with opened(settings) as service:
        await _serve(service, stop, stop_s=settings.archiver_stop_s)
    logger.info("stopped")


async def _serve(service: Service, stop: asyncio.Event, *, stop_s: float) -> None:
    async with asyncio.TaskGroup() as group:
        http = group.create_task(loudly(partial(service.http.serve, sockets=[service.listener])), name="http")
        worker = group.create_task(loudly(service.worker.run), name="worker")
        cursors = group.create_task(loudly(service.cursors.run), name="cursors")
        retention = group.create_task(loudly(service.retention.run), name="retention")
        missing = group.create_task(loudly(service.missing_entries.run), name="missing-entries")
        evictor = group.create_task(loudly(service.evictor.run), name="evictor")
        beside = [retention, missing, evictor]
        if service.chains:
            beside.append(group.create_task(loudly(service.chainer.run), name="chainer"))
        else:
            logger.warning("ARCHIVER_CHAIN is off: a later archiver will chain and export what is archived now")
        if service.exporter is not None:
            beside.append(group.create_task(loudly(service.exporter.run), name="exporter"))
        try:
            await stop.wait()
            logger.info("stopping")
            for task in beside:
                task.cancel()
            service.worker.request_stop()
            await _ended(worker, stop_s)
            # After the worker, so that the last batch's cursors are copied too.
            service.cursors.request_stop()
            await _ended(cursors, _COPY_TIMEOUT_S)
            for task in beside:
                # Bounded, then cancelled once more: a task that hangs must not keep the process alive.
                await _ended(task, _CLOSE_TIMEOUT_S)
        finally:
            # Also if a part failed and the group cancels the others: one that misses its cancellation must end too.
            service.worker.request_stop()
            service.cursors.request_stop()
            service.http.end()
        await _ended(http, _CLOSE_TIMEOUT_S)


async def _ended(task: asyncio.Task[Any], within_s: float) -> None:
    """Wait until a task that was asked to stop has ended; cancel it after ``within_s``."""
    _, running = await asyncio.wait({task}, timeout=within_s)
    if running:
        logger.warning("%s did not end within %g s", task.get_name(), within_s)
        task.cancel()
