"""The three modes, and what each of them needs."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import Any

import pytest
from pydantic import ValidationError

from shared.read_cache.cache import GroupSpec
from shared.read_cache.groups.group import MISSING
from shared.read_cache.membership.static import StaticMembership, parse_nodes
from shared.read_cache.opening import open_read_cache
from shared.read_cache.ring import Node
from shared.read_cache.settings import ReadCacheSettings
from shared.read_cache.store.lru import LruStore
from shared.read_cache.store.tiny_lfu import TinyLfuStore
from tests.unit.shared.read_cache.origins import Origin


def settings(**values: Any) -> ReadCacheSettings:
    return ReadCacheSettings(_env_file=None, **values)  # type: ignore[call-arg]


def test_without_a_cluster_neither_grpc_nor_boto3_nor_nats_is_imported() -> None:
    program = """
import asyncio, sys
from shared.read_cache.cache import GroupSpec
from shared.read_cache.opening import open_read_cache
from shared.read_cache.settings import ReadCacheSettings

async def load(key):
    return b"value"

async def main():
    for mode in ("off", "local"):
        async with open_read_cache(ReadCacheSettings(read_cache=mode), [GroupSpec("items", load)]) as cache:
            assert await cache["items"].get("a") == b"value"

asyncio.run(main())
print(sorted({name.partition(".")[0] for name in sys.modules} & {"grpc", "google", "boto3", "botocore", "nats"}))
"""
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert run.stdout.strip() == "[]"


async def test_local() -> None:
    origin = Origin()
    origin.rows = {"a": b"value"}
    groups = [GroupSpec("items", origin.load), GroupSpec("more", origin.load)]
    async with open_read_cache(settings(read_cache="local"), groups) as cache:
        assert await asyncio.gather(*(cache["items"].get("a") for _ in range(10))) == [b"value"] * 10
        assert await cache["more"].get("a") == b"value"
        assert origin.loads == ["a", "a"]
        assert (list(cache), len(cache), cache.entries, cache.evictions, cache.waiting) == (
            ["items", "more"],
            2,
            2,
            0,
            0,
        )
        assert cache.bytes_max == 64 * 1024**2
        assert cache.cluster is None
        cache["items"].forget_all()
        assert cache["items"].cached("a") is MISSING
        assert cache["more"].cached("a") == b"value"
        assert isinstance(cache._shelf.store, TinyLfuStore)


async def test_the_policy_is_a_setting() -> None:
    origin = Origin()
    async with open_read_cache(
        settings(read_cache="local", read_cache_policy="lru"), [GroupSpec("items", origin.load)]
    ) as cache:
        assert isinstance(cache._shelf.store, LruStore)


async def test_off() -> None:
    origin = Origin()
    async with open_read_cache(settings(read_cache="off"), [GroupSpec("items", origin.load)]) as cache:
        await asyncio.gather(*(cache["items"].get("a") for _ in range(10)))
        assert origin.loads == ["a"] * 10
        assert (cache.bytes_used, cache.bytes_max, cache.entries) == (0, 0, 0)
        assert await cache["items"].remove("a") == []
        assert cache.stats.hit_rate == 0


async def test_a_group_that_does_not_count_is_in_no_figure() -> None:
    async def load(key: str) -> bytes:
        return key.encode()

    specs = [GroupSpec("items", load), GroupSpec("moments", load, counts=False)]
    async with open_read_cache(settings(read_cache="local"), specs) as cache:
        for name in ("items", "moments", "moments"):
            assert await cache[name].get("a") == b"a"
        assert (cache.stats.gets, cache.stats.loads, cache.stats.hits) == (1, 1, 0)


async def test_groups_need_names_of_their_own() -> None:
    origin = Origin()
    with pytest.raises(ValueError, match="a name of its own"):
        async with open_read_cache(settings(), [GroupSpec("items", origin.load)] * 2):
            pass


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"read_cache_membership": "static"}, "needs READ_CACHE_NODES"),
        ({"read_cache_membership": "static", "read_cache_nodes": "a=b"}, "is not name=host:port"),
        ({"read_cache_membership": "static", "read_cache_nodes": "b=127.0.0.1:1"}, "a, is not in the list"),
        ({"read_cache_membership": "cloud_map", "read_cache_cloud_map": "only"}, "namespace/service"),
        ({"read_cache_membership": "jetstream"}, "needs a connection to NATS"),
        (
            {
                "read_cache_membership": "static",
                "read_cache_nodes": "a=127.0.0.1:1",
                "read_cache_tls_cert_file": "cert.pem",
            },
            "go together",
        ),
    ],
)
async def test_a_cluster_that_cannot_be_says_what_is_missing(values: dict[str, Any], says: str) -> None:
    origin = Origin()
    node = Node("a", "127.0.0.1:0")
    with pytest.raises(ValueError, match=says):
        async with open_read_cache(
            settings(read_cache="cluster", **values), [GroupSpec("items", origin.load)], node=node
        ):
            pass


async def test_a_node_listens_on_private_addresses_only() -> None:
    origin = Origin()
    values = {"read_cache_membership": "static", "read_cache_nodes": "a=0.0.0.0:8001"}
    with pytest.raises(ValueError, match="peers are trusted"):
        async with open_read_cache(
            settings(read_cache="cluster", **values), [GroupSpec("items", origin.load)], node=Node("a", "0.0.0.0:8001")
        ):
            pass


@pytest.mark.parametrize(
    "values",
    [
        {"read_cache": "perhaps"},
        {"read_cache_bytes_max": 1_000},
        {"read_cache_loads_max": 0},
        {"read_cache_lease_s": 0.1},
        {"read_cache_bucket": "a.b"},
        {"read_cache_peer_timeout_ms": 1},
    ],
)
def test_settings_out_of_range(values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        settings(**values)


def test_lists_of_nodes() -> None:
    assert parse_nodes("a=10.0.0.1:8001, b=10.0.0.2:8001*3,") == [
        Node("a", "10.0.0.1:8001"),
        Node("b", "10.0.0.2:8001", 3),
    ]
    assert parse_nodes("") == []
    for wrong in ("a", "a=b", "=a:1", "a=h:1*", "a=h:1*x", "a b=h:1", "a=h:1*17"):
        with pytest.raises(ValueError, match=r"is not name=|name has|weight must be"):
            parse_nodes(wrong)


async def test_a_static_ring_is_relied_on_while_somebody_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    membership = StaticMembership([Node("a", "127.0.0.1:1")], here="a")
    assert membership.current() is None
    task = asyncio.create_task(membership.run())
    await asyncio.sleep(0)
    view = membership.current()
    assert view is not None
    assert (view.epoch, view.here, membership.lapses) == (1, "a", 0)
    assert await membership.newest() is view
    from shared.read_cache.membership import view as module

    clock = module.now_s  # type: ignore[attr-defined]
    monkeypatch.setattr(module, "now_s", lambda: clock() + 6)
    assert membership.current() is None
    assert membership.lapses == 1
    task.cancel()
