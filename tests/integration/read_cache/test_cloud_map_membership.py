"""Nodes as Cloud Map knows them, against an emulator."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from shared.aws.discovery import Instance, deregister, register
from shared.read_cache.cache import GroupSpec
from shared.read_cache.membership.cloud_map import CloudMapMembership
from shared.read_cache.opening import open_read_cache
from shared.read_cache.settings import ReadCacheSettings
from tests.integration.aws.aws_world import Registry, environment_of
from tests.integration.read_cache.cluster_world import Table
from tests.waiting import eventually

pytest.importorskip("boto3")
pytest.importorskip("moto")
pytestmark = pytest.mark.integration


@pytest.fixture
def registry(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Registry]:
    for name, value in environment_of(endpoint).items():
        monkeypatch.setenv(name, value)
    registry = Registry("cache-node")
    yield registry
    registry.client.close()


async def names(membership: CloudMapMembership, *wanted: str) -> None:
    async def seen() -> bool:
        view = membership.current()
        return view is not None and [node.name for node in view.ring.nodes] == sorted(wanted)

    await eventually(seen, seconds=60)


async def test_nodes_come_and_go_and_one_finds_itself_by_its_address(registry: Registry) -> None:
    for number in (1, 2):
        register(registry.client, registry.service_id, Instance(f"10.0.0.{number}", 8001, f"task-{number}"))
    node = CloudMapMembership(registry.client, registry.namespace, "cache-node", address="10.0.0.2:8001", look_s=0.1)
    assert node.current() is None
    task = asyncio.create_task(node.run())
    await names(node, "task-1", "task-2")
    view = node.current()
    assert view is not None
    assert (view.epoch, view.here) == (1, "task-2")
    await asyncio.sleep(0.3)
    assert node.current() is view
    await asyncio.to_thread(register, registry.client, registry.service_id, Instance("10.0.0.3", 8001, "task-3"))
    await names(node, "task-1", "task-2", "task-3")
    await asyncio.to_thread(deregister, registry.client, registry.service_id, "task-2")
    await names(node, "task-1", "task-3")
    view = node.current()
    assert view is not None
    assert view.here is None
    assert node.lapses == 0
    task.cancel()


async def test_a_list_is_relied_on_for_a_while_when_cloud_map_does_not_answer(
    registry: Registry, caplog: pytest.LogCaptureFixture
) -> None:
    register(registry.client, registry.service_id, Instance("10.0.0.1", 8001, "task-1"))
    node = CloudMapMembership(registry.client, registry.namespace, "cache-node", look_s=0.3, valid_s=6.0)
    task = asyncio.create_task(node.run())
    await names(node, "task-1")
    node._service = "no-such-service"
    await eventually(lambda: "the list of cache nodes" in caplog.text, seconds=60)
    assert node.current() is not None

    async def lapsed() -> bool:
        return node.current() is None

    await eventually(lapsed, seconds=60)
    assert node.lapses == 1
    assert caplog.text.count("the list of cache nodes") == 1
    assert await node.newest() is None
    node._service = "cache-node"
    await names(node, "task-1")
    task.cancel()


async def test_by_settings(registry: Registry) -> None:
    register(registry.client, registry.service_id, Instance("10.0.0.1", 8001, "task-1"))
    settings = ReadCacheSettings(
        read_cache="cluster",
        read_cache_membership="cloud_map",
        read_cache_cloud_map=f"{registry.namespace}/cache-node",
    )
    async with open_read_cache(settings, [GroupSpec("items", Table().load)]) as cache:

        async def seen() -> bool:
            assert cache.cluster is not None
            view = cache.cluster.view()
            return view is not None and len(view.ring) == 1

        await eventually(seen, seconds=60)
