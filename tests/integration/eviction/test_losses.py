"""Redis is lost, processes die, and a thousand items come and go."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

import pytest

from archival_worker.eviction.evictor import EvictionOptions
from infrastructure.local.errors import ProcessFailed
from infrastructure.local.services import API_GATEWAY, ARCHIVAL_WORKER
from shared import names
from shared.permissions.accounts import Account
from shared.redis_layout.keys import closed_key, item_key
from tests.crowds.http_clients import crowd_client
from tests.integration.eviction.eviction_world import Auction, auction_of, sold
from tests.integration.eviction.test_life import REASON
from tests.integration.loss.recover_world import house_of
from tests.stack import StackFactory
from tests.waiting import eventually

pytestmark = pytest.mark.integration

BOTH = (API_GATEWAY, ARCHIVAL_WORKER)
GONE = "0"


async def leave_by_themselves(auction: Auction, *item_ids: str) -> None:
    async def have_left() -> bool:
        return not await auction.redis.exists(*map(item_key, item_ids))

    await eventually(have_left, seconds=60)


@pytest.mark.parametrize("crash_at", ["", "recover.items"])
async def test_recover_leaves_out_what_has_left(start_stack: StackFactory, crash_at: str) -> None:
    # The command has the setting of the archiver.
    stack = await start_stack(services=BOTH, env={"CLOSED_KEEP_S": GONE})
    async with auction_of(stack) as auction:
        house = auction.house
        await sold(house, "lot")
        await leave_by_themselves(auction, "lot")
        await house.create("open", increment={"kind": "flat", "value": 1})
        await house.accepted("open", "ann", "one", amount=1)
        await house.all_archived()
        # One more is closed, and not exported when Redis is lost: no archiver is there.
        await stack.stop_process(ARCHIVAL_WORKER)
        await sold(house, "fresh")
        await house.all_published()
        before = {item_id: await house.item(item_id) for item_id in ("lot", "open", "fresh")}

        await house.lose_redis()
        for path in ("/api/v1/items/lot", "/api/v1/items/lot/bids", "/api/v1/bids/by-key/lot-ann?item_id=lot"):
            answer = await house.http.get(path)
            assert (answer.status_code, answer.json()["code"]) == (503, "BEING_REBUILT")
        if crash_at:
            code, output = await house.recover(crash_at=crash_at)
            assert code != 0, output
        code, output = await house.recover()
        assert code == 0, output
        await eventually(house.is_ready)
        epoch = 3 if crash_at else 2
        assert await auction.traces("lot") == []
        assert await auction.redis.exists(item_key("open"), item_key("fresh")) == 2
        for item_id, was in before.items():
            assert await house.item(item_id) == was | {"epoch": epoch}, item_id
        assert (await house.bid("lot", "bob", "lot-bob", amount=1)).status_code == 201, "its stored verdict"
        assert (await house.bid("lot", "eve", "late", amount=1_000)).json()["code"] == "SOLD"
        assert (await house.accepted("open", "eve", "two", amount=2))["seq"] == 2

        await stack.start_process(ARCHIVAL_WORKER)
        await leave_by_themselves(auction, "fresh")
        answer = await house.http.post("/api/v1/items/lot/bids/lot-ann/void", json=REASON)
        assert answer.status_code == 200, answer.text
        assert (answer.json()["epoch"], answer.json()["seq"]) == (epoch, before["lot"]["seq"] + 1)
        await auction.exported("lot")


@pytest.mark.parametrize("crash_at", ["recover.writing:2", "recover.items"])
async def test_what_a_killed_recovery_wrote_does_not_stay(start_stack: StackFactory, crash_at: str) -> None:
    """1. A run writes a closed item that is to stay for a while, and is killed, with its verdicts or without. 2. The
    item's time comes. 3. The next run leaves it out."""
    stack = await start_stack(services=BOTH)
    async with auction_of(stack) as auction:
        house = auction.house
        await sold(house, "lot")
        await auction.exported("lot")
        was = await house.item("lot")
        await stack.stop_process(ARCHIVAL_WORKER)
        await house.lose_redis()
        code, output = await house.recover(crash_at=crash_at)
        assert code != 0, output
        assert await auction.redis.exists(item_key("lot")), "it was written"
        code, output = await house.recover(closed_keep_s=GONE)
        assert code == 0, output
        await eventually(house.is_ready)
        assert await auction.traces("lot") == []
        assert await house.item("lot") == was | {"epoch": 3}
        assert (await house.bid("lot", "bob", "lot-bob", amount=1)).status_code == 201, "its stored verdict"
        for path in ("/api/v1/items/lot/bids", "/api/v1/bids/by-key/lot-ann?item_id=lot"):
            assert (await house.http.get(path)).status_code == 200


async def test_a_recovery_without_the_setting_brings_them_back(start_stack: StackFactory) -> None:
    """Harmless: they leave again."""
    stack = await start_stack(services=BOTH, env={"CLOSED_KEEP_S": GONE})
    async with auction_of(stack) as auction:
        await sold(auction.house, "lot")
        await leave_by_themselves(auction, "lot")
        was = await auction.house.item("lot")
        await stack.stop_process(ARCHIVAL_WORKER)
        await auction.house.lose_redis()
        code, output = await auction.house.recover(closed_keep_s="3600")
        assert code == 0, output
        await eventually(auction.house.is_ready)
        assert await auction.house.item("lot") == was | {"epoch": 2}
        assert (await auction.redis.zscore(closed_key(names.shard_of("lot")), "lot") or 0) < 0, "it is archived"
        await stack.start_process(ARCHIVAL_WORKER)
        await leave_by_themselves(auction, "lot")
        assert await auction.house.item("lot") == was | {"epoch": 2}


async def test_a_recovery_that_leaves_a_struck_item_out_ends_what_a_gateway_keeps_of_it(
    start_stack: StackFactory,
) -> None:
    """The minute for which a struck item stays in Redis does not count there, and a gateway's cache counts on it."""
    stack = await start_stack(services=BOTH)
    async with auction_of(stack) as auction:
        house = auction.house
        await sold(house, "lot")
        await auction.exported("lot")
        await auction.evicted("lot")
        assert (await house.item("lot"))["status"] == "sold"
        assert {bid["status"] for bid in await house.history("lot")} == {"valid"}
        await house.operate("lot/bids/lot-ann/void")
        await auction.exported("lot")
        await stack.stop_process(ARCHIVAL_WORKER)
        await house.lose_redis()
        code, output = await house.recover(closed_keep_s=GONE)
        assert code == 0, output
        await eventually(house.is_ready)
        assert await auction.traces("lot") == [], "it was left out"
        item = await house.item("lot")
        assert (item["status"], item["epoch"]) == ("unsold", 2)
        assert [bid["status"] for bid in await house.history("lot")] == ["voided", "valid"]


async def test_rebuilt_items_leave_in_the_order_of_their_last_events(start_stack: StackFactory) -> None:
    """An archiver looks at the first few of a shard. Those that are to stay for a while must not be before others."""
    stack = await start_stack(services=BOTH)
    async with auction_of(stack, EvictionOptions(keep_s=3_600, first_items=2, exports_every_s=0)) as auction:
        house = auction.house
        *young, old = sorted(
            [item_id for n in range(999) if names.shard_of(item_id := f"lot-{n}") == names.SHARDS[7]][:4]
        )
        for item_id in (*young, old):
            await sold(house, item_id)
        await auction.exported(*young, old)
        await stack.stop_process(ARCHIVAL_WORKER)
        await house.query("UPDATE items SET updated_at = updated_at - interval '2 hours' WHERE item_id = $1", old)
        await house.lose_redis()
        code, output = await house.recover(closed_keep_s="-1")
        assert code == 0, output
        assert await auction.evictor.look() == 1
        assert await auction.redis.exists(*map(item_key, young)) == len(young)
        assert await auction.traces(old) == []


@pytest.mark.parametrize("point", ["evict.asked", "evict.removed"])
async def test_an_archiver_that_dies_in_the_middle(start_stack: StackFactory, point: str) -> None:
    stack = await start_stack(services=(API_GATEWAY,))
    async with auction_of(stack) as auction:
        items = [f"lot-{number}" for number in range(120)]
        for item_id in items:
            await sold(auction.house, item_id)
        env = stack.env_of(Account.ARCHIVER) | {"CLOSED_KEEP_S": GONE, "CRASH_AT": point}
        with contextlib.suppress(ProcessFailed):  # before it was ready
            await stack.add_service(ARCHIVAL_WORKER, ARCHIVAL_WORKER, stack.ports.archiver, env=env)
        assert await stack.wait_ended(ARCHIVAL_WORKER, timeout_s=60)
        reads = {item_id: ("GET", f"/api/v1/items/{item_id}", None, None) for item_id in items}
        read = await auction.answers("", **reads)
        assert {status for status, _ in read.values()} == {200}
        # The claim of the export that it was at would run out in some minutes.
        await auction.house.query("UPDATE exports SET next_try_at = now() WHERE state <> 'confirmed'")
        await stack.add_service("another", ARCHIVAL_WORKER, stack.ports.archiver, env={"CLOSED_KEEP_S": GONE})
        await leave_by_themselves(auction, *items)
        assert await auction.answers("", **reads) == read


async def test_a_gateway_that_dies_while_an_item_comes_back(start_stack: StackFactory) -> None:
    stack = await start_stack(services=BOTH, env={"CRASH_AT": "return.staged"})
    async with auction_of(stack) as auction:
        await sold(auction.house, "lot")
        await auction.evicted("lot")
        with pytest.raises(Exception, match=r"disconnected|reset|closed|refused"):
            await auction.house.operate("lot/bids/lot-ann/void")
        assert not await auction.redis.exists(item_key("lot"))
        waiting = [key async for key in auction.redis.scan_iter("*:returning:*")]
        assert waiting
        assert all([0 < await auction.redis.ttl(key) <= 120 for key in waiting])


async def test_a_thousand_closed_items_leave_nothing_behind(start_stack: StackFactory) -> None:
    stack = await start_stack(services=BOTH, env={"CLOSED_KEEP_S": GONE}, redis_appendfsync="no")
    async with house_of(stack) as house, crowd_client(stack.urls.gateway_url) as http:
        redis: Any = house.redis

        async def life(number: int, name: str) -> None:
            item_id = f"{name}-{number}"
            body = {"id": item_id, "name": item_id, "buy_now_price": 50, "reserve_price": 50}
            assert (await http.post("/api/v1/items", json.dumps(body).encode())).status_code == 201
            path = f"/api/v1/items/{item_id}/bid"
            for amount in (1, 2, 50):
                bid = {"user_id": "ann", "bid_id": f"{item_id}-{amount}", "amount": amount}
                assert (await http.post(path, json.dumps(bid).encode())).status_code == 201

        async def all_gone() -> bool:
            left = sum([await redis.zcard(closed_key(shard)) for shard in names.SHARDS])
            return left == 0 and not [key async for key in redis.scan_iter("*:item:*", count=1_000)]

        async def thousand(name: str) -> int:
            for at in range(0, 1_000, 8):
                await asyncio.gather(*(life(number, name) for number in range(at, min(at + 8, 1_000))))
            most = int((await redis.info("memory"))["used_memory"])
            await eventually(all_gone, seconds=180)
            return most

        async def rests() -> tuple[int, int]:
            await redis.memory_purge()
            return await redis.dbsize(), int((await redis.info("memory"))["used_memory"])

        # The first ones make what stays: the stream of each shard, scripts, buffers of connections.
        first = {names.shard_of(f"warm-{number}"): number for number in range(1_000)}
        assert len(first) == len(names.SHARDS)
        for number in first.values():
            await life(number, "warm")
        await eventually(all_gone, seconds=60)
        keys, memory = await rests()
        most = await thousand("lot")
        keys_after, memory_after = await rests()
        assert keys_after == keys
        assert memory_after - memory < 0.2 * 1024 * 1024, (memory, most, memory_after)
        for number in (0, 500, 999):
            assert (await house.item(f"lot-{number}"))["status"] == "sold"
