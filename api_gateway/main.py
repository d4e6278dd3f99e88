"""The gateway's composition root: opens every resource, joins the parts, closes them in reverse."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
from collections.abc import AsyncIterator, Sequence
from functools import partial
from operator import attrgetter

import uvicorn
from fastapi import FastAPI
from redis.asyncio import Redis
from redis.exceptions import RedisError
from starlette.types import ASGIApp, Receive, Scope, Send

from api_gateway import problems
from api_gateway.archive import Archive
from api_gateway.context import Context
from api_gateway.engine.bids.acknowledge import Acknowledger, LogAcknowledger, ReplicaAcknowledger
from api_gateway.engine.bids.committer import Committer
from api_gateway.engine.bids.scripts import BidScripts
from api_gateway.engine.bids.voids import Voids
from api_gateway.engine.closed.closed_items import ClosedItems
from api_gateway.engine.closed.returns import Returns
from api_gateway.engine.closer import Closer
from api_gateway.engine.item_scripts import ItemScripts, ScriptLimits
from api_gateway.engine.items import Items
from api_gateway.engine.loss.guard import Guard
from api_gateway.engine.loss.lost_items import LostItems
from api_gateway.engine.loss.shards import Shards
from api_gateway.engine.loss.witnesses import Witnesses
from api_gateway.engine.memory import MemoryWatch
from api_gateway.engine.relay.relay import Relay
from api_gateway.engine.relay.shard_scripts import ShardScripts
from api_gateway.history import History
from api_gateway.hot_path import HotPath
from api_gateway.limits import BodyLimit
from api_gateway.openapi import DESCRIPTION, TAGS, install_openapi
from api_gateway.operations import Operations
from api_gateway.routes import bids, feed_tokens, health, items
from api_gateway.settings import Settings
from api_gateway.web.pages import mount_pages
from shared.aliases import AliasSettings
from shared.archive_reads.origin import ArchiveOrigin
from shared.aws.cloudwatch import Gauge, Metric, Total
from shared.aws.presence import presence
from shared.aws.settings import AwsSettings
from shared.clients.nats import NatsLink, StreamSettings
from shared.clients.postgres import open_postgres
from shared.clients.redis import open_redis
from shared.http.metrics import Histogram
from shared.http.problems import problem
from shared.http.protocol import bounded_protocol
from shared.settings import settings_or_exit
from shared.supervision import Work, in_background, supervised

logger = logging.getLogger(__name__)

SHUTDOWN_S = 20

BID_BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
"""Upper bounds of the histogram of bids, in seconds."""


@contextlib.asynccontextmanager
async def open_context(settings: Settings) -> AsyncIterator[Context]:
    """Open the resources and run the background tasks; servers may be away and are waited for in the background."""
    async with contextlib.AsyncExitStack() as stack:
        timeout_s = settings.redis_timeout_ms / 1000
        # One connection, so that it can be asked again whether it still reaches the run of Redis that was asked about.
        unguarded = open_redis(settings.redis_url, timeout_s=timeout_s, connections_max=1)
        stack.push_async_callback(unguarded.aclose)
        pool = await open_postgres(settings.postgres_url, name="api-gateway")
        stack.push_async_callback(pool.close)
        nats = NatsLink(settings.nats_url, name="api-gateway")
        stack.push_async_callback(nats.close)

        limits = ScriptLimits(outbox_entries_max=settings.outbox_entries_max)
        archive = Archive(pool)
        witnesses = Witnesses(archive, nats)
        cursors_made = asyncio.Event()
        shards = Shards(
            unguarded,
            ShardScripts(unguarded),
            witnesses,
            LostItems(unguarded),
            on_initialised=cursors_made.set,
            outbox_alarm_entries=settings.outbox_alarm_entries,
        )
        guard = Guard(shards.compare)
        redis = open_redis(settings.redis_url, timeout_s=timeout_s, on_connect=guard.on_connect)
        stack.push_async_callback(redis.aclose)
        item_scripts = ItemScripts(redis, limits)
        bid_scripts = BidScripts(redis, limits, timeout_s=timeout_s, run_of=guard.run_of)
        stack.push_async_callback(bid_scripts.close)

        acknowledger: Acknowledger | None = None
        log = LogAcknowledger(redis, timeout_s=settings.bid_ack_timeout_ms / 1000)
        relay = Relay(
            redis, ShardScripts(redis), nats, on_published=log.published, on_read=shards.given_out, look=cursors_made
        )
        if settings.bid_ack == "log":
            acknowledger = log
        elif settings.bid_ack == "replica":
            acknowledger = ReplicaAcknowledger(
                redis,
                replicas=settings.bid_ack_replicas,
                timeout_ms=settings.bid_ack_timeout_ms,
                run_of=guard.run_of,
            )
        committer = Committer(
            bid_scripts,
            redis,
            queue_max=settings.bid_queue_max,
            resolve_s=settings.resolve_ms / 1000,
            on_outbox=relay.notice,
            on_given_out=shards.given_out,
            confirm=None if acknowledger is None else acknowledger.confirm,
            secure=None if acknowledger is None else acknowledger.secure,
        )
        closed_items = ClosedItems(redis, ArchiveOrigin(archive.asking), archive.asking)
        item_index = Items(
            redis,
            item_scripts,
            witnesses,
            LostItems(redis),
            closed_items,
            open_catalogue=settings.open_catalogue,
            on_outbox=relay.notice,
        )
        closer = Closer(item_scripts, owned_shards=relay.owned_shards, on_outbox=relay.notice)
        memory = MemoryWatch(redis)
        history = History(redis, archive)
        operations = Operations(
            item_scripts,
            item_index,
            Voids(redis, item_scripts, archive),
            archive,
            Returns(redis, archive.asking),
            on_outbox=relay.notice,
        )
        # After the relay has stopped: it would take the leases again.
        stack.push_async_callback(_release, relay)
        leave = partial(_leave_redis, guard, bid_scripts, redis)
        work: dict[str, Work] = {
            "relay": relay.run,
            "closer": closer.run,
            "shards": partial(shards.run, leave),
            "memory": memory.run,
        }
        if acknowledger is not None:
            work["acknowledger"] = acknowledger.run
        await stack.enter_async_context(in_background(work, keeps_state=False))
        deciding = supervised(committer.run, "committer", keeps_state=False, may_end=committer.is_closing)
        flusher = asyncio.create_task(deciding, name="committer")
        stack.push_async_callback(_drain, committer, flusher, timeout_s + 1)
        figures = partial(_figures, committer, relay, shards)
        await stack.enter_async_context(presence("api_gateway", settings.gateway_port, figures))
        yield Context(
            settings=settings,
            redis=redis,
            nats=nats,
            items=item_index,
            committer=committer,
            secure=None if acknowledger is None else acknowledger.secure,
            relay=relay,
            shards=shards,
            memory=memory,
            archive=archive,
            history=history,
            operations=operations,
            closer=closer,
            bid_seconds=Histogram(*BID_BOUNDS_S),
        )


async def _leave_redis(guard: Guard, bid_scripts: BidScripts, redis: Redis) -> None:
    """Drop every connection that was made before the run of Redis came into doubt."""
    if not guard.run:
        return  # nobody was admitted since the last time
    guard.forget()
    await bid_scripts.leave()
    with contextlib.suppress(RedisError, OSError):
        await redis.connection_pool.disconnect()


async def _release(relay: Relay) -> None:
    with contextlib.suppress(RedisError, OSError, TimeoutError):
        await relay.release()


async def _drain(committer: Committer, flusher: asyncio.Task[None], within_s: float) -> None:
    """Decide the bids that were taken before anything is closed; their events stay in the outbox until relayed."""
    await committer.close()
    await asyncio.wait([flusher], timeout=within_s)


async def _figures(committer: Committer, relay: Relay, shards: Shards) -> Sequence[Metric]:
    """The metrics for CloudWatch, where it is used. Every gateway sees the outboxes of all shards."""
    health = shards.health
    return (
        Total("BidsDecided", committer.decided_total),
        Total("BidsShed", committer.shed_total),
        Gauge("OutboxEntries", health.backlog_total),
        Gauge("OutboxLongest", health.backlog_longest),
        Gauge("ShardsLost", len(health.lost)),
        Gauge("ItemsLost", health.items_lost),
        Gauge("RedisNotAdmitted", int(health.not_admitted is not None)),
        Total("EntriesForeign", relay.health.foreign_total),
    )


def head_as_get(app: ASGIApp) -> ASGIApp:
    """Answer HEAD as GET; the server leaves the body out. The framework alone would refuse HEAD."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "HEAD":
            scope = {**scope, "method": "GET"}
        await app(scope, receive, send)

    return answer


def one_line_paths(app: ASGIApp) -> ASGIApp:
    """Refuse a path with a line break. The framework's patterns end with ``$``, which allows one at the end:
    ``/pause%0A`` would pause an item even where a proxy in front blocks ``/pause``."""

    async def answer(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and ("\n" in scope["path"] or "\r" in scope["path"]):
            await problem(422, "INVALID", "the path must not hold a line break")(scope, receive, send)
            return
        await app(scope, receive, send)

    return answer


def build_app(settings: Settings) -> ASGIApp:
    """The ASGI application: the hot path in front of FastAPI."""

    @contextlib.asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[dict[str, Context]]:
        async with open_context(settings) as context:
            yield {"context": context}

    app = FastAPI(
        title="Bidding platform",
        version="0.1.0",
        summary="The HTTP API of the gateway.",
        description=DESCRIPTION,
        license_info={"name": "Apache 2.0", "identifier": "Apache-2.0"},
        servers=[{"url": "/", "description": "This gateway"}],
        openapi_tags=TAGS,
        # The functions' names: what a generated client calls its methods.
        generate_unique_id_function=attrgetter("name"),
        lifespan=lifespan,
    )
    problems.install(app)
    app.include_router(health.router)
    app.include_router(items.router)
    app.include_router(bids.router)
    app.include_router(feed_tokens.router)
    mount_pages(app, feed_url=settings.broadcast_public_url, feed_port=settings.broadcast_port)
    install_openapi(app)
    return HotPath(BodyLimit(one_line_paths(head_as_get(app)), bytes_max=settings.body_bytes_max))


def main() -> None:
    """Run the gateway until SIGTERM or SIGINT."""
    settings = settings_or_exit(Settings, AwsSettings, AliasSettings, StreamSettings)
    # Most objects of a request die with it; the default threshold would look for cycles among them hundreds of times a
    # second. What is alive now (modules, routes) lives for ever and need not be looked at again.
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    logging.basicConfig(level=settings.log_level, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    uvicorn.run(
        build_app(settings),
        host=settings.gateway_host,
        port=settings.gateway_port,
        loop="uvloop",
        http=bounded_protocol(
            head_bytes_max=settings.head_bytes_max, timeout_s=settings.body_timeout_s, answers_silence=True
        ),
        ws="none",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        backlog=4_096,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=SHUTDOWN_S,
    )
