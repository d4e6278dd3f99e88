"""Composition root: opens everything in the lifespan, closes it in reverse, and runs it under uvicorn."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import TypedDict

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, WebSocketRoute

from broadcast_service import http, watch
from broadcast_service.problems import problem
from broadcast_service.service import Service
from broadcast_service.settings import Settings
from broadcast_service.sources import loader
from broadcast_service.sources.snapshots import SnapshotReader
from broadcast_service.transport import CLOSE_GRACE_S, protocol_class
from shared.clients.redis import open_redis

logger = logging.getLogger(__name__)


class LifespanState(TypedDict):
    """What every request finds in its ``state``."""

    service: Service


def create_app(settings: Settings) -> Starlette:
    """The application; nothing is opened before its lifespan begins."""

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[LifespanState]:
        # One connection for each worker that loads items, and some for /ready.
        redis = open_redis(
            settings.redis_url, timeout_s=settings.redis_timeout_ms / 1000, connections_max=loader.WORKERS + 4
        )
        service = Service(settings, SnapshotReader(redis, events_max=settings.feed_replay_events_max))
        app.state.service = service
        tasks = [
            asyncio.create_task(service.loader.run(), name="loader"),
            asyncio.create_task(service.stream.run(), name="stream"),
            asyncio.create_task(service.sweep(), name="sweep"),
        ]
        for task in tasks:
            task.add_done_callback(_end_process_on_failure)
        try:
            yield {"service": service}
        finally:
            for task in reversed(tasks):
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await redis.aclose()

    return Starlette(
        routes=[
            Route("/health", http.health),
            Route("/ready", http.ready),
            Route("/metrics", http.metrics),
            Route("/stats/items/{item_id}", http.item_stats),
            WebSocketRoute("/ws", watch.watch_any),
            WebSocketRoute("/ws/items/{item_id:path}", watch.watch_item),
        ],
        middleware=[Middleware(http.Cors, origins=settings.origins)],
        exception_handlers={HTTPException: _http_error, Exception: _internal_error},
        lifespan=lifespan,
    )


class FeedServer(uvicorn.Server):
    """uvicorn, but viewers are sent away in an orderly manner before anything else is taken down."""

    def __init__(self, config: uvicorn.Config, app: Starlette) -> None:
        super().__init__(config)
        self._app = app

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        service: Service = self._app.state.service
        logger.info("closing %d connections", len(service.connections))
        await service.drain()
        await super().shutdown(sockets)


def create_server(settings: Settings) -> FeedServer:
    """The server, not running yet."""
    app = create_app(settings)
    config = uvicorn.Config(
        app,
        host=settings.broadcast_host,
        port=settings.broadcast_port,
        loop="uvloop",
        http="httptools",
        # websockets-sansio with direct access to the transport.
        ws=protocol_class(send_buffer_bytes=settings.feed_send_buffer_bytes),
        ws_max_size=settings.feed_message_bytes_max,
        ws_ping_interval=settings.feed_ping_interval_s,
        ws_ping_timeout=settings.feed_ping_timeout_s,
        # A frame is compressed for each viewer anew, with a window of memory for each: not worth it for short texts.
        ws_per_message_deflate=False,
        timeout_graceful_shutdown=int(CLOSE_GRACE_S) + 2,
        backlog=2048,
        log_config=None,
        access_log=False,
        server_header=False,
    )
    return FeedServer(config, app)


def main() -> None:
    """``python -m broadcast_service``: serve until SIGTERM or SIGINT."""
    settings = Settings()
    logging.basicConfig(level=settings.log_level.upper(), format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    # One line for every viewer that comes.
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    server = create_server(settings)
    logger.info("listening on %s port %d", settings.broadcast_host, settings.broadcast_port)
    # uvicorn raises the signal again when it is done; Ctrl-C needs no traceback.
    with contextlib.suppress(KeyboardInterrupt):
        server.run()


def _end_process_on_failure(task: asyncio.Task[None]) -> None:
    """A task that should run for ever ended. Viewers would silently see nothing more: better to be started anew."""
    if task.cancelled():
        return
    logger.critical("task %s ended", task.get_name(), exc_info=task.exception())
    signal.raise_signal(signal.SIGTERM)


async def _http_error(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = {404: "NOT_FOUND", 405: "METHOD_NOT_ALLOWED"}.get(error.status_code, "ERROR")
    return problem(error.status_code, code, error.detail, headers=error.headers)


async def _internal_error(_: Request, error: Exception) -> Response:
    return problem(500, "INTERNAL_ERROR", "the service failed; try again")
