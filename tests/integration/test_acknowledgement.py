"""Levels of acknowledgement: what is answered while the confirmation is there, late, or missing."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
from redis.asyncio import Redis

from infrastructure.local.binaries import find_redis
from infrastructure.local.ports import Ports
from infrastructure.local.services import API_GATEWAY
from infrastructure.local.stack import Stack
from shared import names
from tests.stack import StackFactory
from tests.waiting import eventually


async def bid(http: httpx.AsyncClient, item: str, **body: Any) -> httpx.Response:
    return await http.post(f"/api/v1/items/{item}/bid", json=body)


async def by_key(http: httpx.AsyncClient, item: str, key: str) -> tuple[int, str]:
    answer = await http.get(f"/api/v1/bids/by-key/{key}", params={"item_id": item})
    return answer.status_code, answer.json().get("code", "")


async def test_log_answers_once_jetstream_has_the_event(start_stack: StackFactory) -> None:
    stack = await start_stack(services=(API_GATEWAY,), env={"BID_ACK": "log", "BID_ACK_TIMEOUT_MS": "400"})
    async with (
        httpx.AsyncClient(base_url=stack.urls.gateway_url, timeout=10) as http,
        Redis.from_url(stack.urls.redis_url, protocol=2, decode_responses=True) as redis,
    ):
        first = await bid(http, "logged", user_id="ada", amount=5, bid_id="b-1")
        assert first.status_code == 201
        found: Any = await redis.hmget(names.cursors_key(names.shard_of("logged")), ["next", "published"])
        assert found[0] == found[1], "the answer came before the PubAck"

        await stack.stop_process("nats")
        unknown = await bid(http, "logged", user_id="bob", amount=6, bid_id="b-2")
        assert (unknown.status_code, unknown.json()["code"]) == (503, "OUTCOME_UNKNOWN")
        # It stands all the same, and what depends on no event is answered at once.
        assert (await http.get("/api/v1/items/logged")).json()["current_bid"] == 6
        assert (await bid(http, "logged", user_id="cyd", amount=6)).json()["code"] == "TOO_LOW"
        # Its repetition is not acknowledged either, as long as the event is not safe.
        assert (await bid(http, "logged", user_id="bob", amount=6, bid_id="b-2")).status_code == 503
        # Nor is it told under its key; that would be an acknowledgement too.
        assert await by_key(http, "logged", "b-2") == (503, "OUTCOME_UNKNOWN")

        await stack.start_process("nats")

        async def acknowledged() -> httpx.Response | None:
            answer = await bid(http, "logged", user_id="bob", amount=6, bid_id="b-2")
            return answer if answer.status_code == 201 else None

        answer = await eventually(acknowledged, seconds=30)
        assert answer is not None
        assert answer.json()["seq"] == 2
        assert await by_key(http, "logged", "b-2") == (200, "")


async def test_log_waits_for_a_raised_maximum_as_well(start_stack: StackFactory) -> None:
    """It has no event, but the archive needs it as much as one."""
    stack = await start_stack(services=(API_GATEWAY,), env={"BID_ACK": "log", "BID_ACK_TIMEOUT_MS": "400"})
    async with (
        httpx.AsyncClient(base_url=stack.urls.gateway_url, timeout=10) as http,
        Redis.from_url(stack.urls.redis_url, protocol=2, decode_responses=True) as redis,
    ):

        async def cursors() -> list[str]:
            found: Any = await redis.hmget(names.cursors_key(names.shard_of("raised")), ["next", "published"])
            return list(found)

        first = await bid(http, "raised", user_id="ada", max_amount=5)
        raised = await bid(http, "raised", user_id="ada", max_amount=50)
        assert (raised.status_code, raised.json()["seq"]) == (201, first.json()["seq"])
        assert await cursors() == ["3", "3"], "the answer came before the PubAck"
        await stack.stop_process("nats")
        again = await bid(http, "raised", user_id="ada", max_amount=60, bid_id="b-1")
        assert (again.status_code, again.json()["code"]) == (503, "OUTCOME_UNKNOWN")
        assert await cursors() == ["4", "3"]


async def test_log_works_through_a_gateway_that_does_not_relay(start_stack: StackFactory) -> None:
    stack = await start_stack(services=(API_GATEWAY,), env={"BID_ACK": "log", "BID_ACK_TIMEOUT_MS": "3000"})
    port = Ports.free().gateway
    await stack.add_service("second_gateway", API_GATEWAY, port, env={"GATEWAY_PORT": str(port)})
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=10) as http:
        metrics = (await http.get("/metrics")).text
        assert "bidding_relay_shards 0\n" in metrics, "the first gateway must hold every lease"
        answers = await asyncio.gather(*(bid(http, "elsewhere", user_id=f"u{n}", amount=n) for n in range(1, 51)))
        assert {answer.status_code for answer in answers} <= {200, 201}
        assert any(answer.status_code == 201 for answer in answers)


@asynccontextmanager
async def replica_of(stack: Stack) -> AsyncIterator[None]:
    """A second Redis that follows the stack's."""
    port = Ports.free().redis
    folder = stack.data_dir / "replica"
    folder.mkdir()
    process = await asyncio.create_subprocess_exec(
        str(find_redis(os.environ)),
        *("--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", ""),
        *("--replicaof", "127.0.0.1", str(stack.ports.redis)),
        stdout=asyncio.subprocess.DEVNULL,
    )
    try:
        async with Redis.from_url(stack.urls.redis_url, protocol=2) as redis:

            async def follows() -> bool:
                return bool((await redis.info("replication")).get("slave0", {}).get("state") == "online")

            await eventually(follows)
        yield
    finally:
        process.terminate()
        await process.wait()


async def test_replica_answers_once_a_replica_has_the_bid(start_stack: StackFactory) -> None:
    stack = await start_stack(services=(API_GATEWAY,), env={"BID_ACK": "replica", "BID_ACK_TIMEOUT_MS": "300"})
    async with httpx.AsyncClient(base_url=stack.urls.gateway_url, timeout=10) as http:
        alone = await bid(http, "copied", user_id="ada", amount=5, bid_id="b-1")
        assert (alone.status_code, alone.json()["code"]) == (503, "OUTCOME_UNKNOWN")
        assert (await bid(http, "copied", user_id="bob", amount=1, bid_id="b-2")).json()["code"] == "TOO_LOW"
        assert await by_key(http, "copied", "b-1") == (503, "OUTCOME_UNKNOWN")
        assert await by_key(http, "copied", "b-2") == (200, "TOO_LOW")
        async with replica_of(stack):
            assert await by_key(http, "copied", "b-1") == (200, "")
            again = await bid(http, "copied", user_id="ada", amount=5, bid_id="b-1")
            assert (again.status_code, again.json()["seq"]) == (201, 1)
            assert (await bid(http, "copied", user_id="bob", amount=6)).status_code == 201
