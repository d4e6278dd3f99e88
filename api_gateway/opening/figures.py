"""What a gateway reports to CloudWatch and to Cloud Map, where they are used."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from functools import partial

from api_gateway.engine.bids.committer import Committer
from api_gateway.engine.loss.shards import Shards
from api_gateway.engine.relay.relay import Relay
from api_gateway.settings import Settings
from shared.aws.cloudwatch import Gauge, Metric, Total
from shared.aws.presence import presence
from shared.read_cache.cache import ReadCache


def reported(
    settings: Settings, committer: Committer, relay: Relay, shards: Shards, cache: ReadCache | None
) -> AbstractAsyncContextManager[None]:
    """Register this gateway and report its metrics while inside."""
    return presence("api_gateway", settings.gateway_port, partial(_figures, committer, relay, shards, cache))


async def _figures(committer: Committer, relay: Relay, shards: Shards, cache: ReadCache | None) -> Sequence[Metric]:
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
        *(() if cache is None else (Total("CacheGets", cache.stats.gets), Total("CacheLoads", cache.stats.loads))),
    )
