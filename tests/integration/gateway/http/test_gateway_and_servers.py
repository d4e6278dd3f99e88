"""The gateway and the servers behind it: what reaches the stream, what `/ready` says, when no bids are taken."""

from __future__ import annotations

import asyncio
import json
import signal
from hashlib import blake2b
from typing import Any, cast

import httpx2 as httpx
import nats
import psutil
import pytest
from redis.asyncio import Redis

from api_gateway.engine.relay.shard_scripts import Advance, ShardScripts
from infrastructure.local.services import API_GATEWAY, ARCHIVAL_WORKER
from infrastructure.local.stack import Stack
from shared import names
from shared.redis_layout.cursors import Lineage
from shared.redis_layout.keys import cursors_key, item_key, lease_key
from tests.integration.loss.cursor_moves import advance_published
from tests.integration.loss.recover_world import assert_being_rebuilt, assert_lost_for_now
from tests.stack import StackFactory
from tests.waiting import eventually

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def bid(http: httpx.AsyncClient, item: str, body: dict[str, Any], **headers: str) -> httpx.Response:
    return await http.post(f"/api/v1/items/{item}/bid", json=body, headers=headers)


async def test_every_event_reaches_jetstream_in_order(http: httpx.AsyncClient, gateway_stack: Stack) -> None:
    answers = await asyncio.gather(*(bid(http, "relayed", {"user_id": f"u{n}", "amount": n}) for n in range(1, 201)))
    accepted = sorted(answer.json()["seq"] for answer in answers if answer.status_code == 201)
    connection = await nats.connect(gateway_stack.urls.nats_url)
    try:
        subscription = await connection.jetstream().subscribe(names.subject_of("relayed"), ordered_consumer=True)
        seen: list[int] = []
        while len(seen) < len(accepted):
            message = await subscription.next_msg(timeout=30)
            batch = json.loads(message.data)
            assert message.headers is not None
            place = f"{batch['shard']}:{batch['shard_epoch']}:{batch['n']}"
            assert message.headers["Nats-Msg-Id"] == f"{place}:{blake2b(message.data, digest_size=8).hexdigest()}"
            seen += [event["seq"] for event in batch["events"] if event["type"] == "bid"]
    finally:
        await connection.close()
    assert seen == accepted == list(range(1, len(accepted) + 1))


async def test_who_takes_a_shard_over_sees_that_the_stream_is_another_one(start_stack: StackFactory) -> None:
    """A gateway that looked at the new stream before it had the shard must look again before it publishes."""
    stack = await start_stack(services=(API_GATEWAY,))
    lease, cursors = lease_key(names.shard_of("moved")), cursors_key(names.shard_of("moved"))
    connection = await nats.connect(stack.urls.nats_url)
    async with (
        httpx.AsyncClient(base_url=stack.urls.gateway_url, timeout=10) as http,
        Redis.from_url(stack.urls.redis_url, protocol=2) as redis,
    ):
        jetstream = connection.jetstream()

        async def all_published() -> bool:
            found: Any = await cast(Any, redis.hmget(cursors, ["next", "published"]))
            return bool(found[0] == found[1])

        async def stream_exists() -> bool:
            return names.STREAM in {info.config.name for info in await jetstream.streams_info()}

        for amount in (1, 2):
            assert (await bid(http, "moved", {"user_id": "ada", "amount": amount})).status_code == 201
        await eventually(all_published)
        stack.kill(API_GATEWAY, signal.SIGKILL)
        assert await stack.processes[API_GATEWAY].wait(10)
        await redis.set(lease, "somebody else")
        await jetstream.delete_stream(names.STREAM)
        await stack.start_process(API_GATEWAY)
        await eventually(stream_exists)
        assert (await bid(http, "moved", {"user_id": "ada", "amount": 3})).status_code == 201
        await redis.delete(lease)
        await eventually(all_published)
        subject = names.subject_of("moved")
        info = await jetstream.stream_info(names.STREAM, subjects_filter=subject)
        assert info.state.subjects == {subject: 4}, "the creation and three bids, the old ones as well"
    await connection.close()


async def test_the_cursor_of_one_stream_is_not_moved_by_another(redis: Redis) -> None:
    scripts = ShardScripts(redis)
    shard = "fence"  # none of the 64, so that no relay touches it
    await redis.set(lease_key(shard), "mine")
    await scripts.init_shard(shard)

    async def advance(entry: int, stream_id: str) -> bool:
        advance = Advance(shard, Lineage("", 1), entry, 1)
        (moved,) = await advance_published(scripts, [advance], token="mine", stream_id=stream_id)
        return moved

    assert await advance(1, "old")
    assert not await advance(2, "new")
    assert await cast(Any, redis.hget(cursors_key(shard), "published")) == b"1"
    assert await scripts.rewind_published(shard, token="mine", stream_id="new")
    assert await advance(2, "new")


async def is_ready(http: httpx.AsyncClient) -> bool:
    return bool((await http.get("/ready")).json()["status"] == "ready")


async def test_a_gateway_has_one_connection_to_nats(http: httpx.AsyncClient, gateway_stack: Stack) -> None:
    """At its start it asks for the last message of all 64 shards at once, before there is any connection."""
    await eventually(lambda: is_ready(http), seconds=30)
    connections = psutil.Process(gateway_stack.pid(API_GATEWAY)).net_connections("tcp")
    to_nats = [one for one in connections if one.raddr and one.raddr.port == gateway_stack.ports.nats]
    assert len(to_nats) == 1


async def test_ready_says_what_is_degraded(start_stack: StackFactory) -> None:
    stack = await start_stack(services=(API_GATEWAY,))
    async with httpx.AsyncClient(base_url=stack.urls.gateway_url, timeout=10) as http:
        await eventually(lambda: is_ready(http), seconds=30)
        await stack.stop_process("nats")

        async def degraded() -> bool:
            return "nats" in (await http.get("/ready")).json()["degraded"]

        await eventually(degraded)
        assert (await http.get("/ready")).status_code == 200
        assert (await bid(http, "no-nats", {"user_id": "ada", "amount": 1})).status_code == 201
        assert (await http.get("/health")).json()["status"] == "healthy"


async def test_ready_says_that_redis_fills_up(http: httpx.AsyncClient, redis: Redis) -> None:
    used = (await redis.info("memory"))["used_memory"]
    await redis.config_set("maxmemory", int(used * 1.1))
    try:

        async def told() -> bool:
            answer = await http.get("/ready")
            return answer.status_code == 200 and "maxmemory" in answer.json()["degraded"].get("memory", "")

        await eventually(told)
        metrics = dict(line.split() for line in (await http.get("/metrics")).text.splitlines() if line[0] != "#")
        used, bound = (float(metrics[f"bidding_redis_memory_{name}bytes"]) for name in ("", "max_"))
        assert 0.8 * bound < used
    finally:
        await redis.config_set("maxmemory", "0")


async def test_a_redis_that_lost_its_data_takes_no_bids(start_stack: StackFactory) -> None:
    stack = await start_stack(services=(API_GATEWAY, ARCHIVAL_WORKER))
    async with (
        httpx.AsyncClient(base_url=stack.urls.gateway_url, timeout=10) as http,
        Redis.from_url(stack.urls.redis_url, protocol=2) as redis,
    ):
        assert (await bid(http, "wiped", {"user_id": "ada", "amount": 5})).status_code == 201

        async def archived() -> bool:
            return int(await redis.hget(cursors_key(names.shard_of("wiped")), "archived") or 0) >= 2

        await eventually(archived)
        await redis.flushall()
        await assert_being_rebuilt(lambda: bid(http, "wiped", {"user_id": "bob", "amount": 1}))
        for _ in range(20):
            answer = await bid(http, "wiped", {"user_id": "bob", "amount": 1})
            assert_lost_for_now(answer)
            assert "retry-after" in answer.headers
        assert (await http.get("/ready")).status_code in (200, 503)
        assert not await redis.exists(item_key("wiped"))
