"""``/health``, ``/ready`` and ``/metrics``."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator

from fastapi import APIRouter, Request, Response
from fastapi.responses import PlainTextResponse
from prometheus_client.core import Metric
from redis.exceptions import RedisError

from api_gateway.context import Context, context_of
from api_gateway.contract.documented import HealthAnswer, ReadyAnswer, json_content
from api_gateway.door.rates import peer_of
from api_gateway.ops.parts import FIGURES, Part, told_of
from shared.aliases import alias_secrets
from shared.domain.errors import BiddingError
from shared.http.metrics import counter, counters, exposition, gauge, metrics_answer
from shared.http.probes import health, readiness
from shared.identity.errors import Forbidden
from shared.read_cache.cache import ReadCache
from shared.secret_pairs import ALSO_USED, ALSO_USED_TEXT, totals_of

router = APIRouter(tags=["operations"])

_CHECK_TIMEOUT_S = 2.0
SERVICE_NAME = "api-gateway"


@router.get(
    "/health",
    summary="Is the process alive?",
    responses={200: {"description": "It is", "content": json_content(HealthAnswer)}},
)
async def get_health() -> Response:
    """Always 200 while the process answers; says nothing of the servers behind it."""
    return health(SERVICE_NAME)


@router.get(
    "/ready",
    summary="Can it take bids?",
    responses={
        200: {"description": "Bids are taken", "content": json_content(ReadyAnswer)},
        503: {"description": "Bids cannot be taken", "content": json_content(ReadyAnswer)},
    },
)
async def get_readiness(request: Request) -> Response:
    """200 while bids can be decided, with whatever else is degraded; 503 without Redis or with shards to rebuild.

    What is degraded is told to addresses in `OPERATIONS_NETWORKS`, and to tokens of operators and auditors.
    """
    is_inside = _is_inside(request)
    takes_bids, degraded = await _state(context_of(request))
    told = {"degraded": degraded} if is_inside else {}
    return readiness(SERVICE_NAME, works=takes_bids, is_degraded=bool(degraded), **told)


def _is_inside(request: Request) -> bool:
    """Whether the caller may be told more than a word: by where it calls from, or who it is."""
    context, headers = context_of(request), request.headers.raw
    return context.insiders.has(peer_of(request.scope), headers) or context.access.is_watcher(headers)


async def own_part(context: Context) -> Part:
    """This gateway, as another one would describe it."""
    takes_bids, degraded = await _state(context)
    figures = {
        FIGURES["bidding_bids_decided_total"]: float(context.committer.decided_total),
        FIGURES["bidding_bids_waiting"]: float(len(context.committer)),
        FIGURES["bidding_outbox_entries"]: float(context.shards.health.backlog_total),
    }
    status = "unavailable" if not takes_bids else "degraded" if degraded else "ready"
    return Part("api_gateway", status, told_of(degraded), figures)


async def _state(context: Context) -> tuple[bool, dict[str, str]]:
    """Whether bids can be decided, and what is the matter with each part that is not well."""

    async def redis() -> None:
        await context.redis.ping()

    checks = {"redis": await _check(redis), "postgres": await _check(context.archive.ping)}
    checks["nats"] = None if context.nats.is_connected else "not connected; events wait in the outbox"
    shards = context.shards.health
    if shards.not_admitted is not None:
        # With a cluster, the items of the other nodes take bids.
        checks["nodes" if shards.others_are_admitted else "redis"] = shards.not_admitted
    elif shards.unread:
        checks["nodes"] = f"the nodes of Redis that have {shards.unread} of 64 shards do not answer"
    if shards.lost:
        older = f"; {len(shards.stale)} of them because Redis is an older copy" if shards.stale else ""
        if context.relay.health.foreign_total:
            older += "; the stream has other messages in the place of entries, see the log"
        checks["shards"] = f"{len(shards.lost)} of 64 shards were lost and must be rebuilt{older}"
    elif shards.missing:
        checks["shards"] = f"{len(shards.missing)} of 64 shards are not initialised yet"
    if shards.items_lost:
        checks["items"] = f"{shards.items_lost} items were lost alone and must be rebuilt: `bidding recover --item`"
    if shards.archive_is_behind:
        checks["outbox"] = f"{shards.backlog_longest} entries wait to be archived in the longest outbox"
    checks["memory"] = context.memory.shortage
    checks["identity"] = None if context.fetched_keys is None else context.fetched_keys.trouble
    if context.relay.health.cut_off:
        checks["relay"] = "NATS does not answer; the shards are left to gateways that reach it"
    elif context.relay.health.last_error is not None:
        checks["relay"] = context.relay.health.last_error
    degraded = {name: reason for name, reason in checks.items() if reason is not None}
    has_keys = context.fetched_keys is None or context.fetched_keys.can_verify
    return "redis" not in degraded and "shards" not in degraded and has_keys, degraded


async def _check(call: Callable[[], Awaitable[None]]) -> str | None:
    try:
        async with asyncio.timeout(_CHECK_TIMEOUT_S):
            await call()
    except (RedisError, BiddingError, OSError, TimeoutError) as error:
        return f"{type(error).__name__}: {error}"
    return None


@router.get(
    "/metrics",
    summary="Prometheus metrics",
    response_class=PlainTextResponse,
    response_description="The Prometheus text format, version 0.0.4",
    responses={403: {}},
)
async def get_metrics(request: Request) -> Response:
    """Counters and gauges in the Prometheus text format.

    For addresses in `OPERATIONS_NETWORKS`, and for tokens of operators and auditors; 403 to all others.
    """
    if not _is_inside(request):
        raise Forbidden("metrics are for addresses in OPERATIONS_NETWORKS, and for tokens of operators and auditors")
    return metrics_answer(exposition(_families(context_of(request))))


def _families(context: Context) -> Iterator[Metric]:
    committer, relay, shards = context.committer, context.relay.health, context.shards.health
    yield counter("bidding_bids_decided_total", "Bids decided, accepted or refused", committer.decided_total)
    yield counter("bidding_flushes_total", "Round trips of group commit", committer.flushes_total)
    yield counter("bidding_bids_shed_total", "Bids answered 503 because the queue was full", committer.shed_total)
    yield gauge("bidding_bids_waiting", "Bids waiting for a flush", len(committer))
    yield context.bid_seconds.family("bidding_bid_seconds", "From the head of a bid's request to its verdict")
    sockets = context.bid_sockets
    yield gauge("bidding_bid_sockets", "Open WebSockets of bids", len(sockets))
    yield counter("bidding_bid_sockets_refused_total", "WebSockets of bids without room", sockets.refused_total)
    text = "Requests, bids and items refused because there were too many"
    yield counters("bidding_rate_limited_total", text, "policy", context.rates.refused_total)
    yield gauge("bidding_bodies_bytes", "Bytes of request bodies without an answer yet", context.body_bytes.held)
    text = "Requests without room for their bodies"
    yield counter("bidding_bodies_refused_total", text, context.body_bytes.refused_total)
    yield gauge("bidding_relay_shards", "Shards that this gateway relays", relay.shards_owned)
    yield counter("bidding_relay_entries_total", "Outbox entries published", relay.entries_published_total)
    yield counter("bidding_relay_failures_total", "Failed relay cycles", relay.failures_total)
    yield counter("bidding_relay_rewinds_total", "Shards published again after a loss", relay.rewinds_total)
    yield gauge("bidding_relay_cut_off", "1 while NATS does not answer this gateway", int(relay.cut_off))
    yield counter("bidding_relay_foreign_total", "Entries whose place another message has", relay.foreign_total)
    yield gauge("bidding_outbox_entries", "Outbox entries not known to be archived", shards.backlog_total)
    yield gauge("bidding_outbox_longest", "The same in the longest outbox of a shard", shards.backlog_longest)
    yield gauge("bidding_shards_lost", "Shards that must be rebuilt", len(shards.lost))
    yield gauge("bidding_redis_memory_bytes", "Memory that Redis uses", context.memory.used_bytes)
    yield gauge("bidding_redis_memory_max_bytes", "Its bound, 0 without one", context.memory.max_bytes)
    not_admitted = int(shards.not_admitted is not None)
    text = "1 while Redis may be an older copy, and the stream cannot be asked"
    yield gauge("bidding_redis_not_admitted", text, not_admitted)
    yield gauge("bidding_items_stuck", "Items that are due and cannot be opened or closed", context.closer.stuck)
    yield gauge("bidding_items_lost", "Items that were lost alone and must be rebuilt", shards.items_lost)
    settings = context.settings
    pairs = (alias_secrets(), settings.auth_hs256_secrets, settings.api_key_secrets)
    yield counters(f"bidding_{ALSO_USED}", ALSO_USED_TEXT, "secret", totals_of(pairs))
    if context.cache is not None:
        yield from _cache_families(context.cache)


def _cache_families(cache: ReadCache) -> Iterator[Metric]:
    stats = cache.stats
    yield counter("bidding_cache_gets_total", "Closed items and pages asked of the read cache", stats.gets)
    yield counter("bidding_cache_hits_total", "Of those, the ones kept here", stats.hits + stats.mirror_hits)
    yield counter("bidding_cache_loads_total", "Questions of the read cache to PostgreSQL", stats.loads)
    yield counter("bidding_cache_fetches_total", "Keys asked of cache nodes", stats.fetches)
    yield counter("bidding_cache_fetch_failures_total", "Of those, the ones loaded here instead", stats.fetch_failures)
    yield gauge("bidding_cache_bytes", "Memory that the read cache uses", cache.bytes_used)
