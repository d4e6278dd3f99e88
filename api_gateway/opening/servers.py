"""The connections of a gateway, and the run of Redis behind them that is admitted."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

from redis.asyncio import Redis
from redis.exceptions import RedisError

from api_gateway.engine.bids.cluster_scripts import AnyBidScripts, ClusterBidScripts, open_bid_scripts
from api_gateway.engine.bids.scripts import BidScripts
from api_gateway.engine.item_scripts import ItemScripts, ScriptLimits
from api_gateway.engine.loss.guard import Guard
from api_gateway.engine.loss.lost_items import LostItems
from api_gateway.engine.loss.shards import Shards
from api_gateway.engine.loss.witnesses import Witnesses
from api_gateway.engine.relay.shard_scripts import ShardScripts
from api_gateway.reads.archive import Archive
from api_gateway.settings import Settings
from api_gateway.tracing.bids import BidTraces
from shared.clients.cluster.client import ClusterClient
from shared.clients.nats import NatsLink
from shared.clients.postgres import open_postgres
from shared.clients.redis import open_redis
from shared.http.insiders import Insiders
from shared.http.proxies import Proxies
from shared.tracing.opening import open_tracer


@contextlib.asynccontextmanager
async def open_traces(settings: Settings, proxies: Proxies) -> AsyncIterator[BidTraces | None]:
    """The traces of sampled bids; None where none are sent."""
    async with open_tracer("api-gateway") as tracer:
        if tracer is None:
            yield None
        else:
            believed = Insiders(settings.trace_networks, proxies)
            yield BidTraces(tracer, believed, rate_max=settings.traced_bids_rate_max)


@dataclass(frozen=True, slots=True)
class Servers:
    """The servers before anything is known of the run of Redis.

    Attributes:
        unguarded: one connection, which is not asked whether its run of Redis is admitted.
    """

    unguarded: Redis
    archive: Archive
    nats: NatsLink


@contextlib.asynccontextmanager
async def open_servers(settings: Settings) -> AsyncIterator[Servers]:
    """Clients that connect on first use, closed in reverse."""
    async with contextlib.AsyncExitStack() as stack:
        # One connection, so that it can be asked again whether it still reaches the run of Redis that was asked about.
        unguarded = open_redis(settings.redis_url, timeout_s=settings.redis_timeout_ms / 1000, connections_max=1)
        stack.push_async_callback(unguarded.aclose)
        pool = await open_postgres(settings.postgres_url, name="api-gateway")
        stack.push_async_callback(pool.close)
        nats = NatsLink(settings.nats_url, name="api-gateway")
        stack.push_async_callback(nats.close)
        yield Servers(unguarded, Archive(pool), nats)


@dataclass(frozen=True, slots=True)
class GuardedRedis:
    """Redis for everything that decides: each connection is of a run that the witnesses have admitted.

    Attributes:
        witnesses: know what Redis must have.
        shards: gives them their cursors, and compares them with the witnesses.
        cursors_made: set whenever shards got their cursors.
        guard: refuses connections to a run that is not admitted.
    """

    redis: Redis
    limits: ScriptLimits
    item_scripts: ItemScripts
    bid_scripts: AnyBidScripts
    witnesses: Witnesses
    shards: Shards
    cursors_made: asyncio.Event
    guard: Guard

    async def leave(self) -> None:
        """Drop every connection that was made before the run of Redis came into doubt; of a cluster, those to the nodes
        that are in doubt."""
        if not self.guard.run:
            return  # nobody was admitted since the last time
        with contextlib.suppress(RedisError, OSError):
            if isinstance(self.redis, ClusterClient) and isinstance(self.bid_scripts, ClusterBidScripts):
                in_doubt = self.shards.health.in_doubt
                self.guard.forget(self.shards.health.runs_in_doubt)
                await self.bid_scripts.leave(in_doubt)
                await self.redis.leave(in_doubt)
            elif isinstance(self.bid_scripts, BidScripts):
                self.guard.forget()
                await self.bid_scripts.leave()
                await self.redis.connection_pool.disconnect()


@contextlib.asynccontextmanager
async def open_guarded_redis(settings: Settings, servers: Servers) -> AsyncIterator[GuardedRedis]:
    """Connections for commands and for flushes of bids; no run of Redis is admitted yet."""
    timeout_s = settings.redis_timeout_ms / 1000
    unguarded = servers.unguarded
    witnesses = Witnesses(servers.archive, servers.nats)
    cursors_made = asyncio.Event()
    shards = Shards(
        unguarded,
        ShardScripts(unguarded),
        witnesses,
        LostItems(unguarded),
        on_initialised=cursors_made.set,
        outbox_alarm_entries=settings.outbox_alarm_entries,
    )
    guard = Guard(shards.compare, is_cluster=isinstance(unguarded, ClusterClient))
    limits = ScriptLimits(outbox_entries_max=settings.outbox_entries_max)
    async with contextlib.AsyncExitStack() as stack:
        redis = open_redis(settings.redis_url, timeout_s=timeout_s, on_connect=guard.on_connect)
        stack.push_async_callback(redis.aclose)
        item_scripts = ItemScripts(redis, limits)
        bid_scripts = open_bid_scripts(redis, limits, timeout_s=timeout_s, run_of=guard.run_of)
        stack.push_async_callback(bid_scripts.close)
        yield GuardedRedis(redis, limits, item_scripts, bid_scripts, witnesses, shards, cursors_made, guard)
