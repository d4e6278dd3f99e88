"""What nodes and front ends report to CloudWatch; that alarms watch these is in test_deploy_check_costs.py."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from cache_node.archive_check import ArchiveCheck
from cache_node.context import Context
from cache_node.figures import figures, service_name
from shared.archive_cache.reads import CachedReads, groups, name_of_group, never_unsettled
from shared.aws.cloudwatch import Distribution, Gauge, Total
from shared.read_cache.membership.view import View
from shared.read_cache.opening import open_read_cache
from shared.read_cache.ring import Node, Ring
from shared.read_cache.settings import ReadCacheSettings

RING = Ring([Node("a", "10.0.0.7:8001"), Node("b", "10.0.0.8:8001")])


class Archive:
    async def get(self, key: str) -> bytes | None:
        return b"{}"

    async def fetch(self, query: str, *arguments: Any) -> list[Any]:
        return []


async def told(node: Node | None, *, view: View | None, keeping: bool) -> dict[str, Any]:
    """What a process reports after three gets of one key."""
    archive = Archive()
    async with open_read_cache(ReadCacheSettings(read_cache="local"), groups(archive, never_unsettled)) as cache:
        for _ in range(3):
            await cache[name_of_group("items")].get("items/lot")
        cache.stats.served += 5
        cache.cluster = cast(Any, SimpleNamespace(view=lambda: view))
        changes = cast(Any, SimpleNamespace(is_keeping=keeping)) if node is not None else None
        context = Context(node, cache, CachedReads(cache, archive), ArchiveCheck(archive), changes)
        context.get_seconds.observe(0.03)
        context.get_seconds.observe(0.06)
        found = {metric.name: metric for metric in await figures(context)}
        cache.cluster = None
    return found


async def test_a_node_reports_what_it_was_asked_what_it_keeps_and_which_ring_it_sees() -> None:
    node = RING.node("a")
    found = await told(node, view=View(3, RING, "a"), keeping=True)
    assert service_name(node) == "cache_node"
    assert found["CacheGets"] == Total("CacheGets", 3)
    assert found["CacheLoads"] == Total("CacheLoads", 1)
    assert found["CacheServed"] == Total("CacheServed", 8), "its own readers and its peers"
    assert found["CacheRingNodes"] == Gauge("CacheRingNodes", 2)
    assert found["CacheKeeping"] == Gauge("CacheKeeping", 1)
    assert cast(Gauge, found["CacheBytes"]).value > 0
    assert {"CacheShed", "CacheEvictions"} < found.keys()


@pytest.mark.parametrize("keeping", [True, False])
async def test_a_node_without_a_ring_says_so(keeping: bool) -> None:
    found = await told(RING.node("a"), view=None, keeping=keeping)
    assert cast(Gauge, found["CacheRingNodes"]).value == 0
    assert cast(Gauge, found["CacheKeeping"]).value == int(keeping)


async def test_a_front_end_reports_how_long_gets_take_and_nothing_that_only_nodes_have() -> None:
    found = await told(None, view=View(3, RING, None), keeping=False)
    assert service_name(None) == "cache_front_end"
    assert found.keys() == {"CacheGets", "CacheLoads", "CacheShed", "CacheGetSeconds"}
    seconds = cast(Distribution, found["CacheGetSeconds"]).counts
    assert sum(count for value, count in seconds.items() if value <= 0.05) == 1
    assert sum(count for value, count in seconds.items() if value > 0.05) == 1
