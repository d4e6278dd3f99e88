"""Health, readiness and metrics over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, cast

import uvicorn
from fastapi import FastAPI, Response
from nats.errors import Error as NatsError
from nats.js.api import ConsumerInfo
from redis.asyncio import Redis
from redis.exceptions import RedisError
from typing_extensions import override

from archival_worker.chain.chainer import Chainer
from archival_worker.chain.exports import Exporter
from archival_worker.errors import ArchiveUnavailable
from archival_worker.eviction.evictor import Evictor
from archival_worker.metrics import Metrics
from archival_worker.outbox.cursors import CursorCopier
from archival_worker.outbox.missing_entries import MissingEntries
from archival_worker.store.archive import Archive, DeadLetterCounts
from shared import names
from shared.clients.nats import NatsLink, StreamUnavailable
from shared.http.metrics import metrics_answer
from shared.http.probes import health, readiness
from shared.http.protocols.bounded import BoundedHttpProtocol
from shared.http.sockets import QuietServer

_PROBE_TIMEOUT_S: Final = 2.0
SERVICE_NAME: Final = "archival-worker"


@dataclass(frozen=True, slots=True)
class Report:
    """What one round of probes found. A text says what is wrong; None means good or unknown."""

    redis: str | None
    nats: str | None
    postgres: str | None
    lag: int | None
    ack_pending: int | None
    dead_letters: int | None
    clashes: int | None
    former: int | None

    @property
    def alarms(self) -> dict[str, str]:
        """What an operator must look at, although the worker goes on."""
        alarms = {}
        if self.clashes:
            alarms["clashes"] = f"{self.clashes} events have a place that was given out twice: see `dead-letters list`"
        if self.former:
            alarms["former_epochs"] = (
                f"{self.former} messages came after their items were rebuilt without them: see `dead-letters list`"
            )
        return alarms


class Probes:
    """Asks the three servers at once, each within two seconds."""

    def __init__(self, redis: Redis, link: NatsLink, archive: Archive) -> None:
        self._redis = redis
        self._link = link
        self._archive = archive

    async def ask(self) -> Report:
        """Never raises."""
        redis, consumer, letters = await asyncio.gather(self._ask_redis(), self._ask_nats(), self._ask_postgres())
        info = consumer if isinstance(consumer, ConsumerInfo) else None
        return Report(
            redis=redis,
            nats=consumer if isinstance(consumer, str) else None,
            postgres=letters if isinstance(letters, str) else None,
            lag=info.num_pending if info else None,
            ack_pending=info.num_ack_pending if info else None,
            dead_letters=letters.all if isinstance(letters, DeadLetterCounts) else None,
            clashes=letters.clashes if isinstance(letters, DeadLetterCounts) else None,
            former=letters.former if isinstance(letters, DeadLetterCounts) else None,
        )

    async def _ask_redis(self) -> str | None:
        try:
            async with asyncio.timeout(_PROBE_TIMEOUT_S):
                await cast(Any, self._redis).ping()
        except (RedisError, OSError, TimeoutError) as error:
            return _text(error)
        return None

    async def _ask_nats(self) -> ConsumerInfo | str:
        if not self._link.is_connected:
            return "disconnected"
        try:
            async with asyncio.timeout(_PROBE_TIMEOUT_S):
                client = await self._link.connected()
                info = await client.jetstream().consumer_info(names.STREAM, names.ARCHIVER_DURABLE)
                return cast(ConsumerInfo, info)
        except (NatsError, StreamUnavailable, OSError, TimeoutError) as error:
            return _text(error)

    async def _ask_postgres(self) -> DeadLetterCounts | str:
        try:
            async with asyncio.timeout(_PROBE_TIMEOUT_S):
                await self._archive.check_writable()
                return await self._archive.dead_letters()
        except (ArchiveUnavailable, TimeoutError) as error:
            return _text(error)


def _text(error: BaseException) -> str:
    return str(error) or type(error).__name__


def make_app(
    probes: Probes,
    cursors: CursorCopier,
    missing_entries: MissingEntries,
    metrics: Metrics,
    chainer: Chainer,
    exporter: Exporter | None,
    evictor: Evictor,
) -> FastAPI:
    """``/health``: the process answers. ``/ready``: it archives; 503 otherwise, with what is missing. ``/metrics``."""
    # For probes and Prometheus alone. No OpenAPI description: the generated one would be wrong about `/ready`.
    app = FastAPI(title="Archival worker", openapi_url=None)

    @app.get("/health")
    async def get_health() -> Response:
        return health(SERVICE_NAME)

    @app.get("/ready")
    async def ready() -> Response:
        report = await probes.ask()
        is_ready = metrics.consuming and not (report.redis or report.nats or report.postgres)
        told: dict[str, Any] = {
            "redis": report.redis or "ok",
            "nats": report.nats or "ok",
            "postgres": report.postgres or "ok",
            "consuming": metrics.consuming,
            "lag": report.lag,
            "ack_pending": report.ack_pending,
            "dead_letters": report.dead_letters,
            "clashes": report.clashes,
            "former_epochs": report.former,
            "cursors_to_copy": cursors.pending,
            "items_to_chain": chainer.waiting,
            "exports_open": exporter.open if exporter is not None else None,
            "closed_in_redis": evictor.closed_in_redis,
            "alarms": report.alarms
            | cursors.alarms
            | missing_entries.alarms
            | chainer.alarms
            | (exporter.alarms if exporter else {})
            | evictor.alarms,
        }
        return readiness(SERVICE_NAME, works=is_ready, is_degraded=False, **told)

    @app.get("/metrics")
    async def prometheus() -> Response:
        report = await probes.ask()
        gauges: dict[str, float] = {
            "redis_up": report.redis is None,
            "nats_up": report.nats is None,
            "postgres_up": report.postgres is None,
            "cursors_to_copy": cursors.pending,
            "shard_alarms": len(cursors.alarms),
            "hole_alarms": len(missing_entries.alarms),
            "items_to_chain": chainer.waiting,
            "chain_alarms": len(chainer.alarms),
            "export_alarms": len(exporter.alarms) if exporter is not None else 0,
            "closed_in_redis": evictor.closed_in_redis,
        }
        known = {
            "lag_messages": report.lag,
            "ack_pending": report.ack_pending,
            "dead_letters_stored": report.dead_letters,
            "clashes_stored": report.clashes,
            "former_epochs_stored": report.former,
            "exports_open": exporter.open if exporter is not None else None,
        }
        gauges |= {name: float(value) for name, value in known.items() if value is not None}
        return metrics_answer(metrics.text(gauges))

    return app


class HttpServer(QuietServer):
    """A server in a shared event loop: the composition root handles the signals."""

    @override
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Install no signal handlers."""
        yield


def make_server(app: FastAPI) -> HttpServer:
    """A server for sockets that are bound already."""
    config = uvicorn.Config(
        app,
        http=BoundedHttpProtocol,
        lifespan="off",
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=2,
        timeout_keep_alive=5,
        limit_concurrency=64,
    )
    return HttpServer(config)
