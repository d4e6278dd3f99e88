"""A whole platform with cache nodes: what is told of closed items, and what a void changes, in every mode.

One stack for the file: three nodes, a front end, a gateway that reads through them, and one with a cache of its own.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, cast

import httpx2 as httpx
import pytest
import pytest_asyncio

from api_gateway.engine.closed.reads import KEPT_S
from infrastructure.local.cache_nodes import FRONT_END, node_names
from infrastructure.local.servers.ports import free_ports
from infrastructure.local.services import API_GATEWAY, ARCHIVAL_WORKER
from shared.names import shard_of
from shared.redis_layout.keys import item_key
from tests.integration.cache_node.cache_world import PATIENT, tell
from tests.integration.eviction.eviction_world import Auction, auction_of, sold
from tests.programs import bidding
from tests.stack import StackFactory
from tests.waiting import eventually

pytestmark = [pytest.mark.integration, pytest.mark.asyncio(loop_scope="module")]

NODES = node_names(3)
VOID = {"reason": "a test"}


@dataclass
class Platform:
    auction: Auction
    through_nodes: httpx.AsyncClient
    with_its_own: httpx.AsyncClient
    front_end: httpx.AsyncClient
    nodes: dict[str, httpx.AsyncClient]

    @property
    def gateways(self) -> tuple[httpx.AsyncClient, httpx.AsyncClient]:
        return self.through_nodes, self.with_its_own

    async def read(self, client: httpx.AsyncClient, item_id: str, rest: str = "") -> httpx.Response:
        return await client.get(f"/api/v1/items/{item_id}{rest}")

    async def value(self, key: str) -> httpx.Response:
        return await self.front_end.get("/api", params={"key": key})

    async def void(self, item_id: str, bid_id: str) -> None:
        path = f"/api/v1/items/{item_id}/bids/{bid_id}/void"
        answer = await self.through_nodes.post(path, json=VOID)
        assert answer.status_code == 200, answer.text

    async def metric(self, client: httpx.AsyncClient, name: str) -> float:
        lines = (await client.get("/metrics")).text.splitlines()
        return next(float(line.split()[1]) for line in lines if line.startswith(f"{name} "))

    async def left(self, *item_ids: str, struck_s: float | None = None) -> None:
        """Return when these closed items have left Redis, as if their minute was over.

        If a bid of theirs was struck, at ``struck_s`` on the monotonic clock, the part of the minute goes by for which
        a gateway's own cache keeps what was before.
        """
        if struck_s is not None:
            await asyncio.sleep(struck_s + KEPT_S - time.monotonic())
        for item_id in item_ids:
            await cast(Any, self.auction.redis).hdel(item_key(item_id), "returned_us")
        await self.auction.evicted(*item_ids)


@asynccontextmanager
async def platform_of(env: Mapping[str, str]) -> AsyncIterator[Platform]:
    """All of it, with this environment beside the usual one."""
    factory = StackFactory()
    try:
        stack = await factory(services=(API_GATEWAY, ARCHIVAL_WORKER), cache_nodes=len(NODES), env=env)
        (port,) = free_ports(1)
        own = {"GATEWAY_PORT": str(port), "READ_CACHE": "local"}
        await stack.add_service("gateway_with_its_own", API_GATEWAY, port, own)
        async with AsyncExitStack() as clients:

            async def client(name: str) -> httpx.AsyncClient:
                address = stack.processes[name].spec.address
                return await clients.enter_async_context(httpx.AsyncClient(base_url=address, timeout=60))

            auction = await clients.enter_async_context(auction_of(stack))
            made = Platform(
                auction,
                await client(API_GATEWAY),
                await client("gateway_with_its_own"),
                await client(FRONT_END),
                {name: await client(name) for name in NODES},
            )

            async def all_keep() -> bool:
                return all([(await node.get("/stats")).json()["keeping"] for node in made.nodes.values()])

            await eventually(all_keep, seconds=60)
            yield made
    finally:
        await factory.close()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def platform() -> AsyncIterator[Platform]:
    async with platform_of(PATIENT) as made:
        yield made


async def close_with_many_bids(platform: Platform, item_id: str) -> None:
    house = platform.auction.house
    await house.create(item_id, buy_now_price=500, reserve_price=500, increment={"kind": "flat", "value": 1})
    for number in range(1, 61):
        await house.accepted(item_id, f"user-{number % 5}", f"{item_id}-{number}", amount=number)
    await house.accepted(item_id, "ann", f"{item_id}-ann", amount=500)


async def test_everybody_is_told_the_same_bytes(platform: Platform) -> None:
    await close_with_many_bids(platform, "bytes")
    await platform.auction.exported("bytes")
    rests = {"items/bytes": "", "items/bytes/bids": "/bids", "items/bytes/bids/7": "/bids?limit=7"}
    from_redis = {key: await platform.read(platform.through_nodes, "bytes", rest) for key, rest in rests.items()}
    cursor = from_redis["items/bytes/bids/7"].json()["next_cursor"]
    rests[f"items/bytes/bids/7/{cursor}"] = f"/bids?limit=7&cursor={cursor}"
    for key, rest in rests.items():
        from_redis[key] = await platform.read(platform.through_nodes, "bytes", rest)
    assert len(from_redis["items/bytes/bids"].json()["bids"]) == 50
    await platform.left("bytes")
    for key, rest in rests.items():
        told = from_redis[key].content
        for _ in range(2):
            for gateway in platform.gateways:
                assert (await platform.read(gateway, "bytes", rest)).content == told, key
            for client in (platform.front_end, *platform.nodes.values()):
                answer = await client.get("/api", params={"key": key})
                assert (answer.status_code, answer.content) == (200, told), key
    assert from_redis["items/bytes/bids"].headers.get("content-encoding") is None
    assert (await platform.value("items/bytes/bids")).headers["content-encoding"] == "gzip"


async def test_both_gateways_read_through_their_cache(platform: Platform) -> None:
    await sold(platform.auction.house, "kept")
    await platform.auction.exported("kept")
    await platform.left("kept")
    for gateway, rest in [(each, rest) for each in platform.gateways for rest in ("", "/bids")]:
        assert (await platform.read(gateway, "kept", rest)).status_code == 200
    loads = [await platform.metric(gateway, "bidding_cache_loads_total") for gateway in platform.gateways]
    for _ in range(20):
        for gateway, rest in [(each, rest) for each in platform.gateways for rest in ("", "/bids")]:
            assert (await platform.read(gateway, "kept", rest)).status_code == 200
    assert [await platform.metric(gateway, "bidding_cache_loads_total") for gateway in platform.gateways] == loads
    assert await platform.metric(platform.through_nodes, "bidding_cache_fetches_total") > 0
    assert (await platform.read(platform.through_nodes, "kept", "/bids?cursor=x")).status_code == 422


async def test_an_item_that_a_void_brings_back_is_never_told_as_it_was(platform: Platform) -> None:
    """Redis is asked first; and when the item has left again, no cache has what was before."""
    await close_with_many_bids(platform, "struck")
    await platform.auction.exported("struck")
    await platform.left("struck")
    for _ in range(3):
        # Hot enough for mirrors, and kept everywhere.
        for gateway in platform.gateways:
            assert (await platform.read(gateway, "struck")).json()["status"] == "sold"
            assert (await platform.read(gateway, "struck", "/bids")).json()["bids"][0]["status"] == "valid"
            assert (await platform.read(gateway, "struck", "/bids?limit=3")).json()["bids"][0]["status"] == "valid"
        for client in (platform.front_end, *platform.nodes.values()):
            assert (await client.get("/api", params={"key": "items/struck"})).json()["status"] == "sold"

    async def is_told_everywhere(seq: int) -> None:
        """At once, by both gateways: all of them are asked many times while the caches hear of it."""
        ends_s = time.monotonic() + 1.5
        while time.monotonic() < ends_s:
            for gateway in platform.gateways:
                item = (await platform.read(gateway, "struck")).json()
                assert (item["status"], item["seq"]) == ("unsold", seq)
                listed = (await gateway.get("/api/v1/items", params={"limit": "200"})).json()["items"]
                assert [(one["status"], one["seq"]) for one in listed if one["id"] == "struck"] == [("unsold", seq)]
                for rest in ("/bids", "/bids?limit=3"):
                    page = (await platform.read(gateway, "struck", rest)).json()
                    assert page["bids"][0]["status"] == "voided"

    await platform.void("struck", "struck-ann")
    acknowledged_s = time.monotonic()
    seq = (await platform.read(platform.through_nodes, "struck")).json()["seq"]

    async def front_end_knows() -> bool:
        answer = await platform.value("items/struck")
        return answer.status_code == 200 and answer.json()["seq"] == seq

    telling = asyncio.create_task(is_told_everywhere(seq))
    await eventually(front_end_knows)
    tell(f"the front end tells of a void {time.monotonic() - acknowledged_s:.2f} s after its acknowledgement")
    await telling
    bids = (await platform.value("items/struck/bids")).json()["bids"]
    assert bids[0]["status"] == "voided"

    await platform.auction.exported("struck")
    await platform.left("struck", struck_s=acknowledged_s)
    await is_told_everywhere(seq)
    assert (await platform.value("items/struck")).json()["seq"] == seq


async def test_an_item_that_is_asked_about_too_early_is_found_when_it_is_closed(platform: Platform) -> None:
    for _ in range(20):
        assert (await platform.value("items/early")).status_code == 404
    await sold(platform.auction.house, "early")
    closed_s = time.monotonic()

    async def is_found() -> bool:
        return (await platform.value("items/early")).status_code == 200

    await eventually(is_found)
    tell(f"the front end has an item {time.monotonic() - closed_s:.2f} s after its close")
    await platform.auction.exported("early")
    await platform.left("early")
    for gateway in platform.gateways:
        assert (await platform.read(gateway, "early")).json()["status"] == "sold"


async def test_a_recovery_is_noticed_without_an_event(platform: Platform) -> None:
    """The rows that it writes first are enough: an item has the epoch of its shard."""
    await sold(platform.auction.house, "renewed")
    await platform.auction.exported("renewed")

    async def epoch() -> int:
        answer = await platform.value("items/renewed")
        return int(answer.json()["epoch"]) if answer.status_code == 200 else 0

    async def is_there() -> bool:
        return await epoch() == 1

    await eventually(is_there)
    async with platform.auction.house.connected() as connection:
        await connection.execute("INSERT INTO recoveries (shard, shard_epoch) VALUES ($1, 2)", shard_of("renewed"))
        began_s = time.monotonic()

        async def is_renewed() -> bool:
            return await epoch() == 2

        await eventually(is_renewed, seconds=30)
        tell(f"a rebuilt shard is noticed after {time.monotonic() - began_s:.2f} s")
        await connection.execute("DELETE FROM recoveries")


async def test_the_command_shows_the_ring_and_what_is_kept(platform: Platform) -> None:
    folder = ("--data-dir", str(platform.auction.stack.data_dir))

    async def all_agree() -> str | None:
        code, output = await bidding("cache", "ring", *folder)
        return output if code == 0 else None

    output = await eventually(all_agree, seconds=60)
    assert all(name in output for name in (*NODES, FRONT_END))
    code, output = await bidding("cache", "stats", *folder)
    assert (code, output.count("ready")) == (0, len(NODES) + 1), output
    await sold(platform.auction.house, "shown")

    async def is_there() -> bool:
        return (await platform.value("items/shown")).status_code == 200

    await eventually(is_there)
    code, output = await bidding("cache", "get", "items/shown", *folder)
    assert (code, '"id":"shown"' in output) == (0, True)

    async def all_are_well() -> str | None:
        code, output = await bidding("status", *folder)
        return output if code == 0 else None

    output = await eventually(all_are_well, seconds=60)
    assert all(f"{name}" in output for name in (*NODES, FRONT_END))
