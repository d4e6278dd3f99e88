"""Rows 30 and 31 of the table in docs/guarantees.md: Redis fails over to a replica that lacks the newest entries, and a
number that is given to something else."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, cast

import httpx2 as httpx
import pytest
from nats.js.api import Header
from redis.asyncio import Redis

from infrastructure.local.servers.ports import HOST, Ports
from infrastructure.local.services import API_GATEWAY, ARCHIVAL_WORKER
from shared import names
from shared.clients.nats import open_nats
from shared.messages import frame_batch
from shared.redis_layout.keys import cursors_key, item_key, lease_key, outbox_key
from tests.faults.rig.proxy import FaultyProxy
from tests.integration.loss.recover_world import RENEWED, House
from tests.programs import add_replica
from tests.stack import StackFactory
from tests.waiting import eventually

ITEM = "lot-1"
QUIET = "quiet"
SHARD = names.shard_of(ITEM)


@dataclass
class Pair:
    """A platform whose gateway reaches Redis and NATS through proxies, and a replica that follows through one, too."""

    house: House
    redis_url: str
    to_redis: FaultyProxy
    to_nats: FaultyProxy
    to_primary: FaultyProxy
    replica_port: int

    async def cursors(self) -> dict[str, str]:
        """The cursors of the item's shard."""
        found = await cast(Any, self.house.redis.hgetall(cursors_key(SHARD)))
        return {name.decode(): value.decode() for name, value in found.items()}

    async def fail_over(self) -> None:
        """The primary is gone for good; the replica is promoted, and found where the primary was."""
        self.house.stack.kill("redis")
        assert await self.house.stack.wait_ended("redis")
        async with Redis(host=HOST, port=self.replica_port, protocol=2) as replica:
            await cast(Any, replica.replicaof("NO", "ONE"))
        self.to_redis.lead_to(self.replica_port)

    async def answers(self, count: int, *, first: int) -> list[httpx.Response]:
        """Bids of one cent more each, one after the other."""
        return [await self.house.bid(ITEM, "eve", f"eve-{first + n}", amount=first + n) for n in range(count)]


async def accepted(house: House, item_id: str, user_id: str, bid_id: str, amount: int) -> httpx.Response:
    """The 201; where its confirmation comes too late, the bidder repeats the bid under its id."""

    async def is_accepted() -> httpx.Response | None:
        answer = await house.bid(item_id, user_id, bid_id, amount=amount)
        assert answer.status_code in (201, 503), answer.text
        return answer if answer.status_code == 201 else None

    return await eventually(is_accepted, f"a 201 for {bid_id}", seconds=60)


async def without_nats(house: House) -> None:
    """The gateway knows that NATS is gone. Until then its client keeps what is published, and sends it later."""

    async def is_noticed() -> bool:
        return "nats" in (await house.http.get("/ready")).json()["degraded"]

    await eventually(is_noticed, "/ready says that NATS is not connected", seconds=60)


@asynccontextmanager
async def pair(start_stack: StackFactory, *, bid_ack: str) -> AsyncIterator[Pair]:
    ports = Ports.free()
    async with AsyncExitStack() as stack:
        to_redis, to_nats, to_primary = [
            await stack.enter_async_context(FaultyProxy(port)) for port in (ports.redis, ports.nats, ports.redis)
        ]
        redis_url = f"redis://{HOST}:{to_redis.port}/0"
        env = {"REDIS_URL": redis_url, "NATS_URL": f"nats://{HOST}:{to_nats.port}", "BID_ACK": bid_ack}
        env |= {"BID_ACK_TIMEOUT_MS": "1000", "REDIS_TIMEOUT_MS": "2500", "RESOLVE_MS": "500"}
        # No archival worker: the archive knows nothing of what was bid a moment ago.
        running = await start_stack(services=(API_GATEWAY,), env=env, ports=ports)
        _, replica_port = await add_replica(running, to_primary.port)
        async with (
            httpx.AsyncClient(base_url=running.urls.gateway_url, timeout=20) as http,
            Redis.from_url(redis_url, protocol=2) as redis,
        ):

            async def follows() -> bool:
                return bool((await redis.info("replication")).get("slave0", {}).get("state") == "online")

            await eventually(follows, seconds=60)
            yield Pair(House(running, http, redis), redis_url, to_redis, to_nats, to_primary, replica_port)


@pytest.mark.parametrize("bid_ack", ["redis", "replica", "log"])
async def test_row_30_a_failover_to_a_replica_that_lacks_the_newest_while_nats_cannot_be_asked(
    start_stack: StackFactory, bid_ack: str
) -> None:
    """No number is given out twice. What was acknowledged is there after `recover`, but what Redis alone had."""
    async with pair(start_stack, bid_ack=bid_ack) as both:
        house = both.house
        told = {(await accepted(house, ITEM, "ann", f"ann-{n}", n)).json()["bid_id"] for n in range(1, 6)}
        await accepted(house, QUIET, "ann", "quiet-1", 1)

        async def has_all() -> bool:
            async with Redis(host=HOST, port=both.replica_port, protocol=2) as replica:
                return bool(await replica.hget(item_key(ITEM), "seq") == b"5")

        await eventually(has_all, seconds=60)
        async with both.to_primary.away():
            # The replica hears no more. These are published, and the last two not even that.
            if bid_ack == "replica":
                answers = [await house.bid(ITEM, "bob", f"bob-{n}", amount=n) for n in range(6, 11)]
                assert {answer.status_code for answer in answers} == {503}
            else:
                answers = [await accepted(house, ITEM, "bob", f"bob-{n}", n) for n in range(6, 11)]
            told |= {answer.json()["bid_id"] for answer in answers if answer.status_code == 201}
            await house.all_published()
            async with both.to_nats.away():
                await without_nats(house)
                if bid_ack == "redis":
                    alone = [await accepted(house, ITEM, "cyd", f"cyd-{n}", n) for n in (11, 12)]
                else:
                    alone = [await house.bid(ITEM, "cyd", f"cyd-{n}", amount=n) for n in (11, 12)]
                    assert {answer.status_code for answer in alone} == {503}
                given_out = int((await both.cursors())["next"])
                await both.fail_over()

                async def refused() -> bool:
                    answer = await house.bid(ITEM, "eve", "eve-0", amount=50)
                    assert answer.status_code != 201, "this number was given out already"
                    return "older copy" in answer.text

                await eventually(refused, seconds=60)
                for answer in await both.answers(20, first=51):
                    assert (answer.status_code, answer.json()["code"]) == (503, "UNAVAILABLE"), answer.text
                    assert "may be an older copy" in answer.text

                async def is_told() -> bool:
                    ready = await house.http.get("/ready")
                    reason = ready.json()["degraded"].get("redis", "")
                    return ready.status_code == 503 and "may be an older copy" in reason

                await eventually(is_told, "/ready tells of an older copy", seconds=30)
                assert int((await both.cursors())["next"]) < given_out, "the replica lacks the newest"

            # NATS is back. It has more of this shard than the new primary, which is closed; others go on.
            async def closed() -> bool:
                answer = await house.bid(ITEM, "eve", "eve-1", amount=60)
                assert answer.status_code != 201
                return bool(answer.json()["code"] == "BEING_REBUILT")

            await eventually(closed, seconds=60)
            for answer in await both.answers(20, first=80):
                assert (answer.status_code, answer.json()["code"]) == (503, "BEING_REBUILT"), answer.text
            await eventually(house.is_degraded, seconds=60)
            if bid_ack == "replica":
                quiet = await house.bid(QUIET, "bob", "quiet-2", amount=2)
                assert quiet.status_code == 503, "the new primary has no replica"
                assert quiet.json()["code"] == "OUTCOME_UNKNOWN"
            else:
                await accepted(house, QUIET, "bob", "quiet-2", 2)

            code, output = await house.recover(redis_url=both.redis_url)
            assert code == 0, output
            await house.stack.add_service(ARCHIVAL_WORKER, ARCHIVAL_WORKER, house.stack.ports.archiver, {})
            await house.all_archived()
        stored = {row["bid_id"] for row in await house.query("SELECT bid_id FROM bids WHERE item_id = $1", ITEM)}
        lost = {answer.json()["bid_id"] for answer in alone if answer.status_code == 201}
        assert told <= stored, "acknowledged, and published"
        assert not lost & stored, "Redis alone had these two: the documented loss of BID_ACK=redis"
        assert await house.query("SELECT * FROM dead_letters") == []
        item = await house.item(ITEM)
        assert (item["epoch"], item["current_bid"]) == (RENEWED, 10)


async def test_row_30_what_only_this_gateway_has_seen_closes_the_shard_too(start_stack: StackFactory) -> None:
    """Nothing was published that the replica lacks; NATS is there when it is promoted, and knows of nothing."""
    async with pair(start_stack, bid_ack="redis") as both:
        house = both.house
        await accepted(house, ITEM, "ann", "ann-1", 1)
        await house.all_published()

        async def has_all() -> bool:
            async with Redis(host=HOST, port=both.replica_port, protocol=2) as replica:
                return bool(await replica.hget(item_key(ITEM), "seq") == b"1")

        await eventually(has_all, seconds=60)
        async with both.to_primary.away():
            async with both.to_nats.away():
                await without_nats(house)
                await accepted(house, ITEM, "bob", "bob-2", 2)
                await both.fail_over()

            async def closed() -> bool:
                answer = await house.bid(ITEM, "eve", "eve-1", amount=60)
                assert answer.status_code != 201, "Bob was told of this number"
                return bool(answer.json()["code"] == "BEING_REBUILT")

            await eventually(closed, seconds=60)


@asynccontextmanager
async def owned_by_another(redis: Redis) -> AsyncIterator[None]:
    """Another gateway seems to have the shard's lease; it runs out a few seconds afterwards."""

    async def renew() -> None:
        while True:
            await redis.set(lease_key(SHARD), "another", px=5_000)
            await asyncio.sleep(0.5)

    renewing = asyncio.create_task(renew())
    try:
        yield
    finally:
        renewing.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await renewing


async def test_row_31_a_message_that_is_not_ours_under_an_entrys_id(start_stack: StackFactory) -> None:
    """JetStream calls the entry a duplicate. It is not counted as published; its shard closes, and says so."""
    stack = await start_stack(services=(API_GATEWAY,), env={"BID_ACK": "log", "BID_ACK_TIMEOUT_MS": "1000"})
    async with (
        httpx.AsyncClient(base_url=stack.urls.gateway_url, timeout=20) as http,
        Redis.from_url(stack.urls.redis_url, protocol=2) as redis,
    ):
        house = House(stack, http, redis)
        await accepted(house, ITEM, "ann", "ann-1", 1)
        await accepted(house, QUIET, "ann", "quiet-1", 1)
        await house.all_published()

        async def let_go() -> bool:
            return "bidding_relay_shards 63\n" in (await http.get("/metrics")).text

        # So that the next entry is known before the relay publishes it.
        async with owned_by_another(redis):
            await eventually(let_go, "the shard's relay lets it go", seconds=60)
            unknown = await house.bid(ITEM, "bob", "bob-2", amount=2)
            assert (unknown.status_code, unknown.json()["code"]) == (503, "OUTCOME_UNKNOWN")
            [(entry_id, fields)] = await cast(Any, redis.xrange(outbox_key(SHARD), "(2-0", "+"))
            payload = frame_batch(
                SHARD, 1, int(entry_id.partition(b"-")[0]), ITEM, fields[b"events"], fields.get(b"sealed")
            )
            client = await open_nats(stack.urls.nats_url, name="somebody-else")
            await client.jetstream().publish(
                names.subject_of(ITEM),
                b"something else",
                headers={Header.MSG_ID: names.message_id(SHARD, 1, 3, payload)},
            )
            await client.close()

        async def closed() -> bool:
            answer = await house.bid(ITEM, "bob", "bob-2", amount=2)
            assert answer.status_code != 201, "its event is not in the stream"
            return bool(answer.json()["code"] == "BEING_REBUILT")

        await eventually(closed, seconds=60)
        assert await cast(Any, redis.hget(cursors_key(SHARD), "published")) == b"2"
        assert "bidding_relay_foreign_total 1\n" in (await http.get("/metrics")).text
        log = (stack.data_dir / "logs" / "api_gateway.log").read_text()
        assert f"another message in the place of entry 1:3 of shard {SHARD}" in log

        async def says_so() -> bool:
            return "other messages in the place of entries" in (await http.get("/ready")).text

        await eventually(says_so, seconds=60)
        assert (await accepted(house, QUIET, "bob", "quiet-2", 2)).json()["seq"] == 2, "other shards go on"
