"""Opens every resource of the gateway, joins the parts, and closes them in reverse."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from functools import partial

from redis.asyncio import Redis
from redis.exceptions import RedisError

from api_gateway.bid_socket.sockets import BidSockets
from api_gateway.changes.operations import Operations
from api_gateway.changes.rulings import BidderRulings
from api_gateway.context import Context
from api_gateway.door.bodies import BodyBytes
from api_gateway.door.foreign_pages import ForeignPages
from api_gateway.door.rates import Rates
from api_gateway.engine.accounts.accounts import Accounts
from api_gateway.engine.accounts.scripts import AccountScripts
from api_gateway.engine.accounts.turns import VoidTurns
from api_gateway.engine.bids.acknowledge import Acknowledger, LogAcknowledger
from api_gateway.engine.bids.cluster_replicas import open_replica_acknowledger
from api_gateway.engine.bids.cluster_scripts import AnyBidScripts, ClusterBidScripts, open_bid_scripts
from api_gateway.engine.bids.committer import Committer
from api_gateway.engine.bids.covered_voids import CoveredVoids
from api_gateway.engine.bids.queue_bound import QueueBound
from api_gateway.engine.bids.scripts import BidScripts
from api_gateway.engine.bids.voids import Voids
from api_gateway.engine.closed.closed_items import ClosedItems
from api_gateway.engine.closed.reads import open_reads
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
from api_gateway.engine.rulings.scripts import RulingScripts
from api_gateway.engine.rulings.spreader import Spreader
from api_gateway.identity.access import Access
from api_gateway.identity.api_keys import ApiKeys
from api_gateway.identity.revoking import Revoking
from api_gateway.images.opening import open_images
from api_gateway.opening.figures import figures
from api_gateway.ops.hot_items import HotItems
from api_gateway.ops.parts import Parts, parse_parts
from api_gateway.own.watch_lists import WatchLists
from api_gateway.reads.archive import Archive
from api_gateway.reads.audit import Audit
from api_gateway.reads.catalogue import Catalogue
from api_gateway.reads.history import History
from api_gateway.reads.listing import Listing
from api_gateway.settings import Settings
from api_gateway.tracing.bids import BidTraces
from shared.archive_reads.origin import ArchiveOrigin
from shared.aws.presence import presence
from shared.clients.cluster.client import ClusterClient
from shared.clients.nats import NatsLink
from shared.clients.postgres import open_postgres
from shared.clients.redis import open_redis
from shared.http.insiders import Insiders
from shared.http.metrics import Histogram
from shared.http.proxies import Proxies
from shared.identity.once import Ration
from shared.identity.revocations import Revocations
from shared.identity.settings import Identity, identity_of
from shared.pacing.buckets import Rate
from shared.read_cache.settings import ReadCacheSettings
from shared.redis_layout.revocations import RevocationStore
from shared.supervision import Work, in_background, supervised
from shared.tracing.opening import open_tracer

BID_BOUNDS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0)
"""Upper bounds of the histogram of bids, in seconds."""


@contextlib.asynccontextmanager
async def open_context(settings: Settings) -> AsyncIterator[Context]:
    """Open the resources and run the background tasks; servers may be away and are waited for in the background."""
    async with contextlib.AsyncExitStack() as stack:
        tracer = await stack.enter_async_context(open_tracer("api-gateway"))
        revoked = Revocations(leeway_s=settings.auth_leeway_s)
        identity = identity_of(settings, revoked)
        proxies = Proxies(settings.gateway_trusted_proxies)
        traces: BidTraces | None = None
        if tracer is not None:
            believed = Insiders(settings.trace_networks, proxies)
            traces = BidTraces(tracer, believed, rate_max=settings.traced_bids_rate_max)
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
        guard = Guard(shards.compare, is_cluster=isinstance(unguarded, ClusterClient))
        redis = open_redis(settings.redis_url, timeout_s=timeout_s, on_connect=guard.on_connect)
        stack.push_async_callback(redis.aclose)
        item_scripts = ItemScripts(redis, limits)
        bid_scripts = open_bid_scripts(redis, limits, timeout_s=timeout_s, run_of=guard.run_of)
        stack.push_async_callback(bid_scripts.close)

        acknowledger: Acknowledger | None = None
        log = LogAcknowledger(redis, timeout_s=settings.bid_ack_timeout_ms / 1000)
        relay = Relay(
            redis,
            ShardScripts(redis),
            nats,
            on_published=log.published,
            on_read=shards.given_out,
            look=cursors_made,
            traces=None if traces is None else traces.entries,
        )
        if settings.bid_ack == "log":
            acknowledger = log
        elif settings.bid_ack == "replica":
            acknowledger = open_replica_acknowledger(
                redis,
                replicas=settings.bid_ack_replicas,
                timeout_ms=settings.bid_ack_timeout_ms,
                run_of=guard.run_of,
            )
        account_scripts = AccountScripts(redis, limits)
        accounts = Accounts(account_scripts)
        hot_items = HotItems(asyncio.get_running_loop().time())
        committer = Committer(
            bid_scripts,
            redis,
            bound=QueueBound(queue_max=settings.bid_queue_max, wait_s=settings.bid_wait_max_ms / 1000),
            resolve_s=settings.resolve_ms / 1000,
            on_outbox=relay.notice,
            on_given_out=shards.given_out,
            on_decided=hot_items.note,
            confirm=None if acknowledger is None else acknowledger.confirm,
            secure=None if acknowledger is None else acknowledger.secure,
            find_credit=accounts.find_credit,
            traces=traces,
        )
        origin = ArchiveOrigin(archive.asking)
        reads = await stack.enter_async_context(open_reads(ReadCacheSettings(), origin, redis, nats))
        closed_items = ClosedItems(redis, reads.archive, archive.asking, on_rebuilt=reads.drop)
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
        audit = Audit(redis, archive)
        operations = Operations(
            item_scripts,
            item_index,
            CoveredVoids(Voids(redis, item_scripts, archive), accounts.find_credit_at_once, VoidTurns(redis)),
            archive,
            Returns(redis, archive.asking),
            on_outbox=relay.notice,
        )
        ruling_scripts = RulingScripts(redis, limits)
        spreader = Spreader(ruling_scripts, owned_shards=relay.owned_shards, look_after=accounts.look_after)
        rulings = BidderRulings(
            ruling_scripts,
            spreader,
            account_scripts,
            accounts,
            item_index,
            archive.asking,
            on_outbox=relay.notice,
        )
        # After the relay has stopped: it would take the leases again.
        stack.push_async_callback(_release, relay)
        leave = partial(_leave_redis, guard, bid_scripts, redis, shards)
        sockets = BidSockets(
            connections_max=settings.bid_sockets_max,
            each_max=settings.guarded("bid_sockets_per_address_max"),
            caller_max=settings.bid_sockets_per_caller_max,
        )
        image_store = stack.enter_context(open_images(settings))
        work: dict[str, Work] = {
            "relay": relay.run,
            "closer": closer.run,
            "rulings": spreader.run,
            "shards": partial(shards.run, leave),
            "memory": memory.run,
            "bid-sockets": sockets.run,
            "images": image_store.run,
        }
        revoking: Revoking | None = None
        fetched_keys = None if identity is None else identity.fetched
        if identity is not None:
            revoking = Revoking(
                RevocationStore(redis, outbox_entries_max=settings.outbox_entries_max),
                nats,
                revoked,
                on_outbox=relay.notice,
                withdrawn=None if fetched_keys is None else fetched_keys.withdrawn,
            )
            work["revocations"] = revoking.run
        if fetched_keys is not None:
            work["keys"] = fetched_keys.run
        if acknowledger is not None:
            work["acknowledger"] = acknowledger.run
        await stack.enter_async_context(in_background(work, keeps_state=False))
        deciding = supervised(committer.run, "committer", keeps_state=False, may_end=committer.is_closing)
        flusher = asyncio.create_task(deciding, name="committer")
        stack.push_async_callback(_drain, committer, flusher, timeout_s + 1)
        told = partial(figures, committer, relay, shards, reads.cache)
        await stack.enter_async_context(presence("api_gateway", settings.gateway_port, told))
        yield Context(
            settings=settings,
            pages=ForeignPages(settings.origins, json_only=settings.auth_mode != "open"),
            insiders=Insiders(settings.operations_networks, proxies),
            access=Access(None if identity is None else identity.principals),
            ration=Ration(),
            # A token may have 8 KiB and stays for two minutes. So of one caller there are few, at most 22; those of all
            # callers take at most 100 MB, where every token is as long as one may be.
            sign_in_ration=Ration(of_all=Rate(per_s=90, burst=1_700), of_one=Rate(per_s=0.1, burst=10)),
            rates=Rates(
                per_caller=settings.guarded("gateway_caller_rate_max"),
                items_per_caller=settings.guarded("gateway_items_rate_max"),
                per_address=settings.guarded("gateway_address_rate_max"),
                proxies=proxies,
            ),
            body_bytes=BodyBytes(settings.bodies_bytes_max, each_max=settings.guarded("bodies_bytes_per_address_max")),
            fetched_keys=fetched_keys,
            revoking=revoking,
            api_keys=_api_keys(settings, identity, archive, revoked),
            redis=redis,
            nats=nats,
            items=item_index,
            images=image_store,
            committer=committer,
            secure=None if acknowledger is None else acknowledger.secure,
            relay=relay,
            shards=shards,
            memory=memory,
            archive=archive,
            listing=Listing(Catalogue(reads.archive, archive.asking), item_index),
            history=history,
            audit=audit,
            operations=operations,
            rulings=rulings,
            closer=closer,
            cache=reads.cache,
            bid_seconds=Histogram(*BID_BOUNDS_S),
            bid_sockets=sockets,
            parts=Parts(parse_parts(settings.ops_parts)),
            hot_items=hot_items,
            watch_lists=WatchLists(archive.asking),
            traces=traces,
        )


def _api_keys(settings: Settings, identity: Identity | None, archive: Archive, revoked: Revocations) -> ApiKeys | None:
    if identity is None or identity.signer is None or not settings.api_key_secrets:
        return None
    return ApiKeys(archive.asking, identity.signer, settings.api_key_secrets, revoked)


async def _leave_redis(guard: Guard, bid_scripts: AnyBidScripts, redis: Redis, shards: Shards) -> None:
    """Drop every connection that was made before the run of Redis came into doubt; of a cluster, those to the nodes
    that are in doubt."""
    if not guard.run:
        return  # nobody was admitted since the last time
    with contextlib.suppress(RedisError, OSError):
        if isinstance(redis, ClusterClient) and isinstance(bid_scripts, ClusterBidScripts):
            in_doubt = shards.health.in_doubt
            guard.forget(shards.health.runs_in_doubt)
            await bid_scripts.leave(in_doubt)
            await redis.leave(in_doubt)
        elif isinstance(bid_scripts, BidScripts):
            guard.forget()
            await bid_scripts.leave()
            await redis.connection_pool.disconnect()


async def _release(relay: Relay) -> None:
    with contextlib.suppress(RedisError, OSError, TimeoutError):
        await relay.release()


async def _drain(committer: Committer, flusher: asyncio.Task[None], within_s: float) -> None:
    """Decide the bids that were taken before anything is closed; their events stay in the outbox until relayed."""
    await committer.close()
    await asyncio.wait([flusher], timeout=within_s)
