"""The few figures for CloudWatch, on which alarms and the autoscaler of nodes decide. ``/metrics`` tells far more.

Every process that reads through the cache reports what its readers asked (``CacheGets``) and what it asked PostgreSQL
(``CacheLoads``), gateways too. Only the sums over all of them give the hit rate: a node does not see what its readers
have mirrored, and a reader does not see what a node loads for it.
"""

from __future__ import annotations

from collections.abc import Sequence

from cache_node.context import Context
from shared.aws.cloudwatch import Distribution, Gauge, Metric, Total
from shared.read_cache.ring import Node


def service_name(node: Node | None) -> str:
    """The name under which a process reports: nodes and front ends are counted apart."""
    return "cache_front_end" if node is None else "cache_node"


async def figures(context: Context) -> Sequence[Metric]:
    """The figures of this moment."""
    cache, stats = context.cache, context.cache.stats
    asked = (
        Total("CacheGets", stats.gets),
        Total("CacheLoads", stats.loads),
        Total("CacheShed", stats.shed),
    )
    if context.node is None:
        return (*asked, Distribution("CacheGetSeconds", context.get_seconds.middles()))
    view = context.view
    return (
        *asked,
        Total("CacheServed", stats.gets + stats.served),
        Total("CacheEvictions", cache.evictions),
        Gauge("CacheBytes", cache.bytes_used, "Bytes"),
        Gauge("CacheRingNodes", len(view.ring) if view is not None else 0),
        Gauge("CacheKeeping", int(context.changes is not None and context.changes.is_keeping)),
    )
