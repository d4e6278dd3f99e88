"""The whole platform on a cluster of three nodes, and what is there after it was stopped and started again."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import httpx2 as httpx
import pytest

from infrastructure.local.errors import StackError
from infrastructure.local.servers.ports import Ports
from infrastructure.local.servers.valkey_cluster import name_of
from infrastructure.local.stack import Stack
from shared import names
from shared.clients.redis import open_redis
from shared.permissions.accounts import Account
from shared.redis_layout.keys import cursors_key, item_key
from tests.faults.redis_cluster.moving import nodes_at
from tests.preforked import run_forked
from tests.stack import StackFactory
from tests.waiting import eventually

pytestmark = [pytest.mark.integration, pytest.mark.timeout(300)]

_ITEMS = [f"lot-{number}" for number in range(48)]


async def archived(redis: Any) -> bool:
    """Whether all that was decided is archived, and Redis knows it."""
    for shard in names.SHARDS:
        last, done = await redis.hmget(cursors_key(shard), ["next", "archived"])
        if last != done:
            return False
    return True


async def test_everything_works_and_is_there_again_after_a_restart(start_stack: StackFactory) -> None:
    stack = await start_stack(valkey_nodes=3, env={"BID_ACK": "log"})
    assert stack.servers == ("redis-1", "redis-2", "redis-3", "nats", "postgres")
    redis = open_redis(stack.urls.redis_url)
    try:
        async with httpx.AsyncClient(base_url=stack.urls.gateway_url, timeout=20) as http:
            for item_id in _ITEMS:
                bid = {"user_id": "ada", "amount": 10, "bid_id": f"first-of-{item_id}"}
                told = await http.post(f"/api/v1/items/{item_id}/bid", json=bid)
                assert told.status_code == 201, told.text
            # Bids on items of many shards in one flush; one bid is refused, and one repeats another.
            bids: list[dict[str, Any]] = [
                {"item_id": item_id, "user_id": "bob", "amount": 20, "bid_id": f"b-{item_id}"} for item_id in _ITEMS
            ]
            bids += [{"item_id": "lot-0", "user_id": "eve", "amount": 5}, bids[1]]
            answers = (await http.post("/api/v1/bids:batch", json={"bids": bids})).json()["results"]
            assert [answer["status"] for answer in answers] == [*[201] * len(_ITEMS), 200, 201]
            assert answers[-1]["answer"]["seq"] == answers[1]["answer"]["seq"]
            await eventually(lambda: archived(redis), "all archived", seconds=30)
            page = (await http.get("/api/v1/items/lot-7/bids")).json()
            assert [(bid["seq"], bid["amount"]) for bid in page["bids"]] == [(2, 20.0), (1, 10.0)]
            listed = (await http.get("/api/v1/items", params={"limit": 100})).json()["items"]
            assert {item["id"] for item in listed} == set(_ITEMS)
            told = await http.post("/api/v1/items/lot-3/cancel", json={"reason": "broken"})
            assert told.status_code == 200, told.text
            ready = await http.get("/ready")
            assert (ready.status_code, ready.json()["degraded"]) == (200, {}), ready.text
        before = [await redis.hgetall(f"{{{names.shard_of(item_id)}}}:item:{item_id}") for item_id in _ITEMS]
        async with nodes_at([stack.ports.redis + number for number in range(3)]) as nodes:
            sizes = [await client.dbsize() for client in nodes.clients.values()]
        assert all(size > 20 for size in sizes), "each node has a part"
    finally:
        await redis.aclose()
    await stack.stop()
    await stack.start()
    redis = open_redis(stack.urls.redis_url)
    try:
        after = [await redis.hgetall(f"{{{names.shard_of(item_id)}}}:item:{item_id}") for item_id in _ITEMS]
        assert after == before
        async with httpx.AsyncClient(base_url=stack.urls.gateway_url, timeout=20) as http:
            told = await http.post("/api/v1/items/lot-5/bid", json={"user_id": "ada", "amount": 30})
            assert (told.status_code, told.json()["seq"]) == (201, 3), told.text
    finally:
        await redis.aclose()


async def test_what_a_cluster_loses_is_rebuilt(start_stack: StackFactory) -> None:
    """One node is wiped: its shards take no bids until `recover`, which looks through all nodes."""
    stack = await start_stack(valkey_nodes=3)
    first = stack.ports.redis
    redis = open_redis(stack.urls.redis_url)
    try:
        async with (
            nodes_at(range(first, first + 3)) as nodes,
            httpx.AsyncClient(base_url=stack.urls.gateway_url, timeout=20) as http,
        ):

            async def bid(item_id: str, amount: int) -> httpx.Response:
                return await http.post(f"/api/v1/items/{item_id}/bid", json={"user_id": "ada", "amount": amount})

            for item_id in _ITEMS:
                assert (await bid(item_id, 10)).status_code == 201
            await eventually(lambda: archived(redis), "all archived", seconds=30)
            homes = {item_id: await nodes.port_of(names.shard_of(item_id)) for item_id in _ITEMS}
            await nodes.clients[first].flushall()

            async def is_noticed() -> bool:
                return "were lost" in (await http.get("/ready")).text

            await eventually(is_noticed, "the loss is noticed", seconds=20)
            for item_id in _ITEMS[:12]:
                told = await bid(item_id, 20)
                if homes[item_id] == first:
                    assert (told.status_code, told.json()["code"]) == (503, "BEING_REBUILT"), told.text
                else:
                    assert told.status_code == 201, told.text
            code, said = await recover(stack)
            assert code == 0, said

            async def is_back() -> bool:
                return all([(await bid(item_id, 30)).status_code == 201 for item_id in _ITEMS[:12]])

            await eventually(is_back, "bids on all items", seconds=30)
    finally:
        await redis.aclose()


async def recover(stack: Stack) -> tuple[int, str]:
    """`python -m archival_worker recover`, beside the running services."""
    return await run_forked("archival_worker", "recover", env=stack.env_of(Account.OPERATOR))


async def test_data_of_another_number_of_nodes_is_not_passed_over(start_stack: StackFactory, tmp_path: Path) -> None:
    stack = await start_stack(services=(), valkey_nodes=2)
    await stack.stop()
    for count in (1, 3):
        with pytest.raises(StackError, match=r"has the data of 2 nodes of Redis\. Start it with --valkey-nodes 2"):
            Stack(stack.data_dir, ports=Ports.free(), valkey_nodes=count)
    (tmp_path / "redis").mkdir()
    with pytest.raises(StackError, match="a single Redis"):
        Stack(tmp_path, ports=Ports.free(), valkey_nodes=3)
    with pytest.raises(StackError, match="leave one of them out"):
        Stack(tmp_path, ports=Ports.free(), valkey_nodes=3, redis_url="redis://127.0.0.1:1/0")
    shutil.rmtree(tmp_path / "redis")


async def test_closed_items_leave_the_nodes_that_answer(start_stack: StackFactory, tmp_path: Path) -> None:
    """One node is away: those of the others leave, and how full these are is seen. Its own leave when it is back."""
    env = {"EXPORT_DIR": str(tmp_path / "exports"), "CLOSED_KEEP_S": "0"}
    stack = await start_stack(valkey_nodes=3, env=env)
    redis = open_redis(stack.urls.redis_url)
    items = [f"lot-{number}" for number in range(12)]
    async with (
        nodes_at([stack.ports.redis + number for number in range(3)]) as nodes,
        httpx.AsyncClient(base_url=stack.urls.gateway_url, timeout=30) as http,
    ):

        async def cancel(item_ids: list[str]) -> None:
            left = list(item_ids)

            async def all_are() -> bool:
                for item_id in list(left):
                    told = await http.post(f"/api/v1/items/{item_id}/cancel", json={"reason": "broken"})
                    if told.status_code == 200:
                        left.remove(item_id)
                return not left

            await eventually(all_are, "all are cancelled", seconds=60)

        async def have_left(item_ids: list[str]) -> bool:
            return not any([await redis.exists(item_key(item_id)) for item_id in item_ids])

        async def memory_is_seen() -> bool:
            lines = (await http.get("/metrics")).text.splitlines()
            return float(next(line.split()[1] for line in lines if line.startswith("bidding_redis_memory_b"))) > 8e6

        homes = {item_id: await nodes.port_of(names.shard_of(item_id)) for item_id in items}
        victim = stack.ports.redis + 1
        away = [item_id for item_id, port in homes.items() if port == victim]
        others = [item_id for item_id in items if item_id not in away]
        assert away
        assert others
        for item_id in items:
            told = await http.post("/api/v1/items", json={"id": item_id, "name": item_id, "start_price": 1})
            assert told.status_code == 201, told.text
        await eventually(lambda: archived(redis), "all archived", seconds=60)
        stack.kill(name_of(2))
        assert await stack.wait_ended(name_of(2))
        await cancel(others)
        await eventually(lambda: have_left(others), "they have left Redis", seconds=90)
        await redis.set(f"{{{names.shard_of(others[0])}}}:test:heavy", b"x" * 8_000_000)
        await eventually(memory_is_seen, "the gateway has looked at the nodes that answer", seconds=60)
        await stack.start_process(name_of(2))
        await cancel(away)
        await eventually(lambda: have_left(away), "those of the node that was away have left, too", seconds=90)
    await redis.aclose()
