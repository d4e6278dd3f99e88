"""Composition root: opens everything in the lifespan, closes it in reverse, and runs it under uvicorn."""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import TypedDict

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.routing import Route, WebSocketRoute
from typing_extensions import override

from broadcast_service.core.close_codes import SERVICE_RESTART, TOO_MANY_ERRORS, TOO_MANY_OPERATIONS
from broadcast_service.endpoints import private, sse, watch
from broadcast_service.endpoints import probes as http
from broadcast_service.service import Service
from broadcast_service.settings import Settings
from broadcast_service.sources import loader
from broadcast_service.sources.left_items import LeftItems
from broadcast_service.transport.streams import http_protocol_class
from shared.aliases import AliasSettings
from shared.archive_reads.asking import Asking
from shared.archive_reads.feed_reads import FeedReads
from shared.archive_reads.origin import ArchiveOrigin
from shared.aws.cloudwatch import Distribution, Gauge, Metric, Total
from shared.aws.presence import presence
from shared.aws.settings import AwsSettings
from shared.clients.postgres import open_postgres
from shared.clients.redis import open_redis
from shared.clients.stream_settings import StreamSettings
from shared.http.connection_limits import UNLIMITED, ConnectionLimits
from shared.http.problems import http_error, internal_error, without_redirects
from shared.http.protocols.websockets import CLOSE_GRACE_S, websocket_protocol
from shared.http.proxies import Proxies
from shared.http.sockets import ListeningServer, sockets_or_exit
from shared.logs import set_up_logging
from shared.settings import settings_or_exit
from shared.supervision import in_background
from shared.tracing.opening import open_tracer
from shared.tracing.settings import TracingSettings

logger = logging.getLogger(__name__)

BACKLOG = 2048
"""Connections that the kernel keeps for us until they are accepted."""

BESIDE_VIEWERS = 100
"""By how much the limits of HTTP connections exceed those of viewers, in all and per address."""

POSTGRES_CONNECTIONS = 4


class LifespanState(TypedDict):
    """The ``state`` of every request."""

    service: Service


def create_app(settings: Settings) -> Starlette:
    """The application; nothing is opened before its lifespan begins."""

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[LifespanState]:
        # One connection for each worker that reads, one each for the shards and for tickets, and some for /ready and
        # for event streams that begin.
        redis = open_redis(
            settings.redis_url,
            timeout_s=settings.redis_timeout_ms / 1000,
            connections_max=loader.WORKERS + loader.ABSENT_WORKERS + private.READERS + 10,
        )
        # For closed items that have left Redis: few ask for them, and nothing live does.
        pool = await open_postgres(
            settings.postgres_url, name="broadcast-service", connections_max=POSTGRES_CONNECTIONS, timeout_s=5
        )
        asking = Asking(pool)
        left = LeftItems(ArchiveOrigin(asking), FeedReads(asking))
        try:
            async with open_tracer("broadcast-service") as tracer:
                service = Service(settings, redis, left, tracer)
                # Viewers of a broadcaster whose task has failed would silently see nothing more.
                async with (
                    in_background(service.work(), keeps_state=True),
                    presence("broadcast_service", settings.broadcast_port, partial(_figures, service)),
                ):
                    yield {"service": service}
        finally:
            pool.terminate()
            await redis.aclose()

    return without_redirects(
        Starlette(
            routes=[
                Route("/health", http.health),
                Route("/ready", http.ready),
                Route("/metrics", http.metrics),
                Route("/stats/items/{item_id}", http.item_stats),
                Route("/sse/items/{item_id:path}", sse.stream_item),
                WebSocketRoute("/ws", watch.watch_any),
                WebSocketRoute("/ws/items/{item_id:path}", watch.watch_item),
            ],
            middleware=[Middleware(http.Cors, origins=settings.origins)],
            exception_handlers={HTTPException: http_error, Exception: internal_error},
            lifespan=lifespan,
        )
    )


async def _figures(service: Service) -> Sequence[Metric]:
    """The metrics for CloudWatch, where it is used."""
    return (
        Gauge("Connections", len(service.connections)),
        Total("FramesSent", service.metrics.frames_sent),
        # Percentiles of single tasks cannot be combined into one over all tasks.
        Distribution("FeedLatencySeconds", service.metrics.latency.middles()),
    )


class FeedServer(ListeningServer):
    """uvicorn, but at a shutdown it first closes the viewers' connections in an orderly way."""

    @override
    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        service: Service = self.lifespan.state["service"]
        logger.info("closing %d connections", len(service.connections))
        await service.drain()
        await super().shutdown(sockets)


def create_server(settings: Settings) -> FeedServer:
    """The server, not running yet."""
    config = uvicorn.Config(
        create_app(settings),
        host=settings.broadcast_host,
        port=settings.broadcast_port,
        loop="uvloop",
        # httptools and websockets-sansio with direct access to the transport.
        http=http_protocol_class(
            send_buffer_bytes=settings.feed_send_buffer_bytes,
            head_timeout_s=settings.feed_head_timeout_s,
            connection_limits=connection_limits_of(settings),
        ),
        ws=websocket_protocol(
            send_buffer_bytes=settings.feed_send_buffer_bytes,
            restart=(SERVICE_RESTART.code, SERVICE_RESTART.reason),
            given_up=frozenset((TOO_MANY_OPERATIONS.code, TOO_MANY_ERRORS.code)),
        ),
        ws_max_size=settings.feed_message_bytes_max,
        # One task pings all connections; see Service.ping.
        ws_ping_interval=None,
        ws_ping_timeout=None,
        # Compression would work on each frame once per viewer, with a window of memory for each: not worth it for short
        # texts.
        ws_per_message_deflate=False,
        # Longer than a load balancer keeps an idle connection, or it would send a request into one that just closed.
        timeout_keep_alive=75,
        timeout_graceful_shutdown=int(CLOSE_GRACE_S) + 2,
        backlog=BACKLOG,
        # By its default, uvicorn would trust the headers of any peer on this machine.
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=list(settings.trusted_proxies),
        log_config=None,
        access_log=False,
        server_header=False,
    )
    return FeedServer(config)


def connection_limits_of(settings: Settings) -> ConnectionLimits:
    """Limits of HTTP connections. They are somewhat higher than those of viewers, so that an address that has all its
    viewers can still ask for `/health`, and is told why it may have no more viewers."""
    each_max = settings.feed_connections_per_address_max
    return ConnectionLimits(
        settings.feed_connections_max + BESIDE_VIEWERS,
        each_max + BESIDE_VIEWERS if each_max else UNLIMITED,
        Proxies(settings.feed_trusted_proxies),
    )


def main() -> None:
    """``python -m broadcast_service``: serve until SIGTERM or SIGINT."""
    settings = settings_or_exit(Settings, AwsSettings, AliasSettings, StreamSettings, TracingSettings)
    set_up_logging(settings.log_level, settings.log_format)
    # At INFO it writes one line for every viewer that connects.
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    server = create_server(settings)
    sockets = sockets_or_exit(
        settings.broadcast_host,
        settings.broadcast_port,
        is_shared=settings.broadcast_reuse_port,
        own_port=settings.broadcast_own_port,
    )
    logger.info("listening on %s port %d", settings.broadcast_host, settings.broadcast_port)
    # uvicorn raises the signal again when it is done; Ctrl-C needs no traceback.
    with contextlib.suppress(KeyboardInterrupt):
        server.run(sockets)
