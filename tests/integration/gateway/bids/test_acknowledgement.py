"""Levels of acknowledgement: what is answered while the confirmation is there, late, or missing."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx2 as httpx
from redis.asyncio import Redis

from api_gateway.engine.bids.acknowledge import ReplicaAcknowledger
from api_gateway.engine.bids.batcher import PendingBid
from api_gateway.engine.bids.committer import Committer
from api_gateway.engine.bids.pending_verdict import PendingVerdict
from api_gateway.engine.bids.queue_bound import QueueBound
from api_gateway.engine.bids.scripts import BidScripts
from api_gateway.engine.item_scripts import ScriptLimits
from infrastructure.local.servers.ports import Ports
from infrastructure.local.services import API_GATEWAY
from infrastructure.local.stack import Stack
from shared import names
from shared.clients.redis import open_redis
from shared.domain.errors import OutcomeUnknown
from shared.redis_layout.keys import cursors_key
from tests.integration.feed.feed_world import AuctionHouse
from tests.programs import add_replica
from tests.stack import StackFactory
from tests.waiting import eventually


async def bid(http: httpx.AsyncClient, item: str, **body: Any) -> httpx.Response:
    return await http.post(f"/api/v1/items/{item}/bid", json=body)


async def by_key(http: httpx.AsyncClient, item: str, key: str) -> tuple[int, str]:
    answer = await http.get(f"/api/v1/bids/by-key/{key}", params={"item_id": item})
    return answer.status_code, answer.json().get("code", "")


async def acknowledged(http: httpx.AsyncClient, item: str, bid_id: str, **body: Any) -> httpx.Response:
    """The 201 for a bid; as long as its confirmation comes too late, its bidder repeats it."""

    async def answered() -> httpx.Response | None:
        answer = await bid(http, item, bid_id=bid_id, **body)
        assert answer.status_code in (201, 503), answer.text
        return answer if answer.status_code == 201 else None

    return await eventually(answered, f"a 201 for {bid_id}", seconds=60)


async def told_by_key(http: httpx.AsyncClient, item: str, key: str) -> None:
    """Return when the bid is told under its key as one that was accepted."""

    async def is_told() -> bool:
        found = await by_key(http, item, key)
        assert found == (200, "") or found[0] == 503, found
        return found == (200, "")

    await eventually(is_told, f"{key} by its key", seconds=60)


async def test_log_answers_once_jetstream_has_the_event(start_stack: StackFactory) -> None:
    stack = await start_stack(services=(API_GATEWAY,), env={"BID_ACK": "log", "BID_ACK_TIMEOUT_MS": "400"})
    async with (
        httpx.AsyncClient(base_url=stack.urls.gateway_url, timeout=10) as http,
        Redis.from_url(stack.urls.redis_url, protocol=2, decode_responses=True) as redis,
    ):
        await acknowledged(http, "logged", "b-1", user_id="ada", amount=5)
        found: Any = await redis.hmget(cursors_key(names.shard_of("logged")), ["next", "published"])
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
        answer = await acknowledged(http, "logged", "b-2", user_id="bob", amount=6)
        assert answer.json()["seq"] == 2
        await told_by_key(http, "logged", "b-2")


async def test_log_waits_for_a_raised_maximum_as_well(start_stack: StackFactory) -> None:
    """It has no event, but the archive needs it as much as one."""
    stack = await start_stack(services=(API_GATEWAY,), env={"BID_ACK": "log", "BID_ACK_TIMEOUT_MS": "400"})
    async with (
        httpx.AsyncClient(base_url=stack.urls.gateway_url, timeout=10) as http,
        Redis.from_url(stack.urls.redis_url, protocol=2, decode_responses=True) as redis,
    ):

        async def cursors() -> list[str]:
            found: Any = await redis.hmget(cursors_key(names.shard_of("raised")), ["next", "published"])
            return list(found)

        first = await acknowledged(http, "raised", "b-1", user_id="ada", max_amount=5)
        raised = await acknowledged(http, "raised", "b-2", user_id="ada", max_amount=50)
        assert raised.json()["seq"] == first.json()["seq"]
        assert await cursors() == ["3", "3"], "the answer came before the PubAck"
        await stack.stop_process("nats")
        again = await bid(http, "raised", user_id="ada", max_amount=60, bid_id="b-3")
        assert (again.status_code, again.json()["code"]) == (503, "OUTCOME_UNKNOWN")
        assert await cursors() == ["4", "3"]


async def relays(http: httpx.AsyncClient, shards: int) -> bool:
    """Whether the gateway holds the leases of so many shards."""
    return f"bidding_relay_shards {shards}\n" in (await http.get("/metrics")).text


async def test_log_works_through_a_gateway_that_does_not_relay(start_stack: StackFactory) -> None:
    stack = await start_stack(services=(API_GATEWAY,), env={"BID_ACK": "log", "BID_ACK_TIMEOUT_MS": "8000"})
    async with httpx.AsyncClient(base_url=stack.urls.gateway_url, timeout=30) as first:
        await eventually(lambda: relays(first, len(names.SHARDS)), "the first gateway holds every lease", seconds=60)
    port = Ports.free().gateway
    await stack.add_service("second_gateway", API_GATEWAY, port, env={"GATEWAY_PORT": str(port)})
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as http:
        assert await relays(http, 0), "the first gateway must hold every lease"
        answers = await asyncio.gather(*(bid(http, "elsewhere", user_id=f"u{n}", amount=n) for n in range(1, 51)))
        assert {answer.status_code for answer in answers} <= {200, 201}
        assert any(answer.status_code == 201 for answer in answers)


@asynccontextmanager
async def replica_of(stack: Stack) -> AsyncIterator[str]:
    """One more Redis that follows the stack's, and has what that has; its name."""
    name, port = await add_replica(stack, stack.ports.redis)
    try:
        async with Redis.from_url(stack.urls.redis_url, protocol=2) as redis:

            async def follows() -> bool:
                others = (await redis.info("replication")).values()
                # Valkey calls a replica "online" before that has taken anything; then its offset is still 0.
                return any(
                    isinstance(one, dict) and (one.get("port"), one.get("state")) == (port, "online") and one["offset"]
                    for one in others
                )

            await eventually(follows)
        yield name
    finally:
        await stack.stop_process(name)


async def test_replica_answers_once_a_replica_has_the_bid(start_stack: StackFactory) -> None:
    stack = await start_stack(services=(API_GATEWAY,), env={"BID_ACK": "replica", "BID_ACK_TIMEOUT_MS": "300"})
    async with httpx.AsyncClient(base_url=stack.urls.gateway_url, timeout=10) as http:
        alone = await bid(http, "copied", user_id="ada", amount=5, bid_id="b-1")
        assert (alone.status_code, alone.json()["code"]) == (503, "OUTCOME_UNKNOWN")
        assert (await bid(http, "copied", user_id="bob", amount=1, bid_id="b-2")).json()["code"] == "TOO_LOW"
        assert await by_key(http, "copied", "b-1") == (503, "OUTCOME_UNKNOWN")
        assert await by_key(http, "copied", "b-2") == (200, "TOO_LOW")
        async with replica_of(stack):
            await told_by_key(http, "copied", "b-1")
            again = await acknowledged(http, "copied", "b-1", user_id="ada", amount=5)
            assert again.json()["seq"] == 1
            await acknowledged(http, "copied", "b-3", user_id="bob", amount=6)


async def test_fewer_replicas_than_asked_for_confirm_nothing(start_stack: StackFactory) -> None:
    env = {"BID_ACK": "replica", "BID_ACK_REPLICAS": "2", "BID_ACK_TIMEOUT_MS": "400"}
    stack = await start_stack(services=(API_GATEWAY,), env=env)
    async with httpx.AsyncClient(base_url=stack.urls.gateway_url, timeout=10) as http, replica_of(stack):
        one = await bid(http, "copied", user_id="ada", amount=5, bid_id="b-1")
        assert (one.status_code, one.json()["code"]) == (503, "OUTCOME_UNKNOWN")
        assert await by_key(http, "copied", "b-1") == (503, "OUTCOME_UNKNOWN")
        async with replica_of(stack):
            await told_by_key(http, "copied", "b-1")
            await acknowledged(http, "copied", "b-3", user_id="bob", amount=6)


class Lateness:
    """How late this machine is with what needs no time: a question to Redis that waits for no replica, and a timer."""

    def __init__(self, redis: Redis) -> None:
        self.worst_s = 0.0
        self._redis = redis

    async def watch(self) -> None:
        """Look until cancelled."""
        while True:
            began_s = time.monotonic()
            await self._redis.ping()
            await asyncio.sleep(0.01)
            self.worst_s = max(self.worst_s, time.monotonic() - began_s - 0.01)


async def test_a_replica_that_is_away_keeps_nobody_waiting_longer_than_it_may(start_stack: StackFactory) -> None:
    """Row 36. Bids come while the replica stands still: none waits behind the others' wait, and refusals not at all.

    Without HTTP, whose clients would need more of the machine than what is looked at.
    """
    timeout_s, waves, items = 3.0, 30, 10
    stack = await start_stack(services=())
    async with (
        AuctionHouse.at(stack.urls.redis_url, stack.urls.nats_url) as house,
        open_redis(stack.urls.redis_url) as redis,
        replica_of(stack) as replica,
    ):
        for number in range(items):
            await house.create(f"away-{number}")
        scripts = BidScripts(redis, ScriptLimits(), timeout_s=5)
        replicas = ReplicaAcknowledger(redis, replicas=1, timeout_ms=int(timeout_s * 1_000), run_of=lambda _: "")
        committer = Committer(
            scripts,
            redis,
            bound=QueueBound(queue_max=10_000, wait_s=0),
            resolve_s=1,
            on_outbox=lambda _: None,
            confirm=replicas.confirm,
        )
        tasks = [asyncio.create_task(replicas.run()), asyncio.create_task(committer.run())]

        async def place(user: str, number: int, amount: int) -> tuple[str, float]:
            future = PendingVerdict()
            began_s = time.monotonic()
            bid_id = f"{user}-{number}-{amount}"
            committer.place(PendingBid(f"away-{number}", user, bid_id, amount, None, None, False, future))
            try:
                return (await future).decode()[0], time.monotonic() - began_s
            except OutcomeUnknown:
                return "unknown", time.monotonic() - began_s

        assert {outcome for outcome, _ in [await place("ada", number, 5) for number in range(items)]} == {"A"}
        stack.kill(replica, signal.SIGSTOP)
        lateness = Lateness(redis)
        looking = asyncio.create_task(lateness.watch())
        higher: list[asyncio.Task[tuple[str, float]]] = []
        lower: list[asyncio.Task[tuple[str, float]]] = []
        for wave in range(waves):
            higher += [asyncio.create_task(place("bob", number, 100 + wave)) for number in range(items)]
            lower += [asyncio.create_task(place("cyd", number, 1)) for number in range(items)]
            await asyncio.sleep(0.05)
        unknown, refused = await asyncio.gather(*higher), await asyncio.gather(*lower)
        looking.cancel()
        await asyncio.wait([looking])
        assert {outcome for outcome, _ in unknown} == {"unknown"}
        assert {outcome for outcome, _ in refused} == {"R"}
        slowest, slowest_refusal = max(took for _, took in unknown), max(took for _, took in refused)
        late_s = lateness.worst_s
        assert slowest < timeout_s + 0.7 + 2 * late_s, f"{slowest:.2f} s, where the machine is {late_s:.2f} s late"
        assert slowest_refusal < timeout_s / 2 + 2 * late_s, f"{slowest_refusal:.2f} s, late by {late_s:.2f} s"

        stack.kill(replica, signal.SIGCONT)

        async def confirmed() -> bool:
            return (await place("dan", 0, 10_000 + int(time.monotonic() * 100)))[0] == "A"

        await eventually(confirmed, seconds=60)
        await committer.close()
        await asyncio.wait(tasks[1:])
        tasks[0].cancel()
        await asyncio.wait(tasks)
        await scripts.close()
