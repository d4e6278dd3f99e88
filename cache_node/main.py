"""Composition root: opens what a node or front end needs in the lifespan, closes it in reverse, serves HTTP.

A front end is this program in another role: a node without a place in the ring. Both answer ``/api`` by the same code,
from the same settings; a front end has neither gRPC server nor store nor follower.
"""

from __future__ import annotations

import contextlib
import gc
import logging
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Final, TypedDict

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.routing import Route

from cache_node import endpoints
from cache_node.archive_check import ArchiveCheck
from cache_node.context import Context
from cache_node.figures import figures, service_name
from cache_node.hearing import Hearing
from cache_node.rebuilds import Rebuilds
from cache_node.retirements import Retirements
from cache_node.settings import ClusterSettings, Settings, checked_node
from shared.aliases import AliasSettings
from shared.archive_cache.changes import Changes
from shared.archive_cache.progress import ArchiveProgress
from shared.archive_cache.reads import CachedReads, groups, never_unsettled
from shared.archive_reads.asking import Asking
from shared.archive_reads.origin import ArchiveOrigin
from shared.aws.presence import presence
from shared.aws.settings import AwsSettings
from shared.clients.nats import NatsLink
from shared.clients.postgres import open_postgres
from shared.clients.stream_settings import StreamSettings
from shared.http.problems import http_error, internal_error, without_redirects
from shared.http.protocols.bounded import bounded_protocol
from shared.http.sockets import QuietServer
from shared.logs import set_up_logging
from shared.read_cache.opening import open_read_cache
from shared.read_cache.settings import ReadCacheSettings
from shared.settings import EXIT_MISCONFIGURED, settings_or_exit
from shared.streams.follower import HEARTBEATS_MISSED_MAX, Follower
from shared.supervision import Work, in_background

logger = logging.getLogger(__name__)

SHUTDOWN_S: Final = 5
HEARTBEAT_S: Final = 2.0
STALLED_S: Final = HEARTBEATS_MISSED_MAX * HEARTBEAT_S
"""A node that was suspended for longer serves nothing that it kept before, as after an equal silence of the stream."""
CONNECTIONS_MAX: Final = 10_000
"""HTTP connections; further ones are answered 503."""
_HEAD_BYTES_MAX: Final = 16 * 1024
_BESIDE_LOADS: Final = 2
"""Connections to PostgreSQL beside those of loads: for ``/ready``, and for seeing whether shards were rebuilt."""


class LifespanState(TypedDict):
    """The ``state`` of every request."""

    context: Context


@asynccontextmanager
async def open_context(settings: Settings, cache_settings: ReadCacheSettings) -> AsyncIterator[Context]:
    """Open the resources and run the background tasks. Servers may be away and are waited for in the background.

    Raises:
        ValueError: settings that do not fit together.
        OSError: the node's address is taken.
    """
    node = settings.node()
    name = f"cache node {node.name}" if node is not None else "cache front end"
    async with AsyncExitStack() as stack:
        connections_max = cache_settings.read_cache_loads_max + _BESIDE_LOADS
        pool = await open_postgres(
            settings.postgres_url, name=name, connections_max=connections_max, timeout_s=5, only_looks_up=True
        )
        stack.callback(pool.terminate)
        nats = NatsLink(settings.nats_url, name=name)
        stack.push_async_callback(nats.close)
        asking = Asking(pool, timeout_s=settings.cache_postgres_timeout_s)
        origin = ArchiveOrigin(asking)
        changes = Changes(ArchiveProgress(nats), stalled_s=STALLED_S) if node is not None else None
        specs = groups(origin, changes.is_unsettled if changes is not None else never_unsettled)
        cache = await stack.enter_async_context(open_read_cache(cache_settings, specs, node=node, nats=nats))
        if changes is not None:
            changes.attach(cache)
            follower = Follower(settings.nats_url, name=f"{name}, changes", heartbeat_s=HEARTBEAT_S)
            rebuilds = Rebuilds(asking, cache.reset, on_blind=cache.withhold, on_sight=cache.tell_again)
            hearing = Hearing(changes, rebuilds)
            cache.before_telling(changes.check)
            cache.hear(hearing.heard, needed=hearing.needed)
            work: dict[str, Work] = {
                "changes": partial(changes.run, follower, before_keeping=rebuilds.look),
                "rebuilds": rebuilds.run,
                "retirements": Retirements(asking, cache).run,
            }
            await stack.enter_async_context(in_background(work, keeps_state=False))
        context = Context(
            node=node,
            cache=cache,
            reads=CachedReads(cache, origin, before_get=changes.check if changes is not None else None),
            archive=ArchiveCheck(asking),
            changes=changes,
        )
        port = settings.cache_node_port if node is not None else settings.cache_port
        await stack.enter_async_context(presence(service_name(node), port, partial(figures, context)))
        yield context


def create_app(settings: Settings, cache_settings: ReadCacheSettings) -> Starlette:
    """The application; nothing is opened before its lifespan begins."""

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[LifespanState]:
        async with open_context(settings, cache_settings) as context:
            yield {"context": context}

    return without_redirects(
        Starlette(
            routes=[
                Route("/api", endpoints.get_value),
                Route("/health", endpoints.health),
                Route("/ready", endpoints.ready),
                Route("/stats", endpoints.stats),
                Route("/metrics", endpoints.metrics),
            ],
            exception_handlers={HTTPException: http_error, Exception: internal_error},
            lifespan=lifespan,
        )
    )


def main() -> None:
    """Serve until SIGTERM or SIGINT; then leave the ring, and answer the requests under way."""
    settings = settings_or_exit(Settings, ClusterSettings, AwsSettings, AliasSettings, StreamSettings)
    set_up_logging(settings.log_level, settings.log_format)
    logging.getLogger("uvicorn.error").setLevel(logging.WARNING)
    cluster_settings = ClusterSettings()
    try:
        checked_node(settings, cluster_settings)
    except ValueError as error:
        sys.stderr.write(f"error: {error}\n")
        raise SystemExit(EXIT_MISCONFIGURED) from None
    # The objects of now live as long as the process: the garbage collector need not visit them.
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    config = uvicorn.Config(
        create_app(settings, cluster_settings),
        host=settings.cache_host,
        port=settings.cache_port,
        loop="uvloop",
        http=bounded_protocol(head_bytes_max=_HEAD_BYTES_MAX, timeout_s=settings.cache_head_timeout_s),
        ws="none",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        backlog=4_096,
        limit_concurrency=CONNECTIONS_MAX,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=SHUTDOWN_S,
    )
    # uvicorn raises the signal again when it is done; Ctrl-C needs no traceback.
    with contextlib.suppress(KeyboardInterrupt):
        QuietServer(config).run()
