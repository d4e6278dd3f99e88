"""For how long verdicts are kept, and how many: refusals drop nobody else's, and a flood takes little memory."""

from __future__ import annotations

import asyncio
import itertools
import json
from typing import Any, cast

import pytest
from redis.asyncio import Redis

from api_gateway.engine.bids.stored import read_verdict
from api_gateway.engine.item_scripts import ScriptLimits
from shared.redis_layout.keys import (
    item_key,
    older_refusals_key,
    recent_key,
    refusals_key,
    verdicts_key,
)
from shared.redis_layout.limits import VERDICT_KEEP_S
from tests.integration.gateway.bids.lot import Lot, new_lot

pytestmark = pytest.mark.asyncio(loop_scope="module")

SMALL = ScriptLimits(refusals_kept=16, refusals_kept_of_one=4)


async def ttl(lot: Lot) -> int:
    return await lot.redis.ttl(verdicts_key(lot.item_id))


@pytest.mark.parametrize("length_us", [None, 3_600_000_000])
async def test_verdicts_stay_while_bids_may_come(lot: Lot, length_us: int | None) -> None:
    await lot.open(length_us=length_us)
    await lot.place(lot.bid("ada", 10, bid_id="k"), lot.bid("bob", 11, key="h"))
    for operation in ("pause", "resume"):
        await lot.items.transition(cast(Any, operation), lot.item_id, reason="x", by="op")
        assert await ttl(lot) == -1, "no verdict of an item that may take bids expires"
    await lot.items.transition("cancel", lot.item_id, reason="x", by="op")
    assert VERDICT_KEEP_S - 60 < await ttl(lot) <= VERDICT_KEEP_S
    assert (await lot.place(lot.bid("ada", 10, bid_id="k")))[0].startswith("A|k|1|")


@pytest.mark.parametrize(("reserve_price", "status"), [(None, b"sold"), (1_000, b"unsold")])
async def test_verdicts_stay_for_a_day_after_the_close(lot: Lot, reserve_price: int | None, status: bytes) -> None:
    await lot.open(length_us=4_000_000, reserve_price=reserve_price)
    await lot.place(lot.bid("ada", 10, bid_id="k"))
    assert await ttl(lot) == -1
    await asyncio.sleep(4.1)
    (entry,) = await lot.items.advance([lot.item_id])
    assert isinstance(entry, int)
    assert entry > 0
    assert (await lot.hash(item_key(lot.item_id)))[b"status"] == status
    assert VERDICT_KEEP_S - 60 < await ttl(lot) <= VERDICT_KEEP_S


async def test_verdicts_stay_for_a_day_after_the_item_was_bought(lot: Lot) -> None:
    await lot.open(buy_now_price=500)
    (verdict,) = await lot.place(lot.bid("ada", 500, bid_id="k"))
    assert VERDICT_KEEP_S - 60 < await ttl(lot) <= VERDICT_KEEP_S
    assert await lot.place(lot.bid("ada", 500, bid_id="k")) == [verdict]


async def test_one_bidders_refusals_are_bounded_and_drop_nobody_elses(own_redis: Redis) -> None:
    lot = new_lot(own_redis, SMALL)
    await lot.open(start_price=1_000)
    (accepted,) = await lot.place(lot.bid("ada", 1_000, bid_id="early"))
    (of_bob,) = await lot.place(lot.bid("bob", 5, bid_id="bob-1"))
    verdicts = []
    for number in range(500):
        verdicts += await lot.place(lot.bid("eve", 5, key=f"eve-{number}"))
    assert await lot.refusals_kept() <= 1 + SMALL.refusals_kept_of_one / 2
    await lot.place(lot.bid("ada", 2_000))
    assert await lot.place(lot.bid("eve", 5, key="eve-499"), lot.bid("eve", 5, key="eve-498")) == verdicts[:-3:-1]
    assert await lot.place(lot.bid("bob", 5, bid_id="bob-1")) == [of_bob]
    assert await lot.place(lot.bid("ada", 1_000, bid_id="early")) == [accepted]
    # One that was dropped is decided anew, by the price of now.
    (again,) = await lot.place(lot.bid("eve", 5, key="eve-0"))
    assert again.startswith("R|TOO_LOW|2000|")
    assert again != verdicts[0]
    # And other content is no longer another use of the key.
    (anew,) = await lot.place(lot.bid("eve", 3_000, key="eve-1"))
    assert anew.startswith("A|")


async def test_the_refusals_of_an_item_are_bounded(own_redis: Redis) -> None:
    lot = new_lot(own_redis, SMALL)
    await lot.open(start_price=1_000)
    (accepted,) = await lot.place(lot.bid("ada", 1_000, bid_id="early"))
    for number in range(300):
        await lot.place(lot.bid(f"u{number}", 5, bid_id=f"b-{number}"), lot.bid(f"u{number}", 6, key="same"))
        assert await lot.refusals_kept() <= SMALL.refusals_kept
        fields = len(await lot.hash(refusals_key(lot.item_id)))
        assert fields <= 3 * SMALL.refusals_kept / 2 + 1, "the bookkeeping is bounded too"
    # The latest are kept, whoever they are of.
    await lot.place(lot.bid("ada", 2_000))
    (kept,) = await lot.place(lot.bid("u299", 5, bid_id="b-299"))
    assert kept.startswith("R|TOO_LOW|1000|")
    assert await lot.place(lot.bid("x", 5, bid_id="b-299")) == ["K"]
    assert await lot.place(lot.bid("ada", 1_000, bid_id="early")) == [accepted]


async def test_a_flood_of_refused_bids_takes_little_memory(lot: Lot) -> None:
    """Row 33, with the longest keys and users that there are."""
    await lot.open(start_price=1_000)
    (accepted,) = await lot.place(lot.bid("ada", 1_000, bid_id="early"))
    number = itertools.count(1)
    for _ in range(150):
        bids = [lot.bid(f"{n % 7_000:064d}", 5, key=f"{n:0255d}") for n in itertools.islice(number, 200)]
        assert all(verdict.startswith("R|TOO_LOW") for verdict in await lot.place(*bids))
    used = 0
    for key in (refusals_key(lot.item_id), older_refusals_key(lot.item_id)):
        used += await cast(Any, lot.redis.memory_usage(key, samples=0)) or 0
        assert 0 < await lot.redis.ttl(key) <= lot.limits.refusals_kept_s
    assert 10_000 < used < 600_000, used
    assert await lot.refusals_kept() <= lot.limits.refusals_kept
    assert await lot.place(lot.bid("ada", 1_000, bid_id="early")) == [accepted]
    assert [key async for key in lot.redis.scan_iter(f"*:{lot.item_id}*")] != []
    keys = {key.decode().split(":")[1] async for key in lot.redis.scan_iter(f"*:{lot.item_id}")}
    assert keys == {"item", "recent", "bidders", "accepted", "verdicts", "refusals", "older-refusals"}


async def test_a_refusal_by_the_hour_is_not_kept(lot: Lot) -> None:
    await lot.open()
    await lot.items.transition("pause", lot.item_id, reason="x", by="op")
    assert (await lot.place(lot.bid("ada", 10, bid_id="k")))[0].startswith("R|PAUSED")
    await lot.items.transition("resume", lot.item_id, reason="x", by="op")
    assert (await lot.place(lot.bid("ada", 10, bid_id="k")))[0].startswith("A|k|")


async def test_verdicts_of_the_layout_before_are_still_answered(lot: Lot) -> None:
    await lot.open()
    await lot.place(lot.bid("ada", 10))
    tag = f"{{{lot.shard}}}"
    old = b"A|old|1|10|10|1|11|1|bid|1|5"
    await lot.redis.set(f"{tag}:idem:{lot.item_id}:ada:old", b"10,\n" + old)
    await lot.redis.set(f"{tag}:keyowner:{lot.item_id}:old", "ada")
    await cast(Any, lot.redis.hdel(item_key(lot.item_id), "keeps_verdicts"))
    assert await lot.place(lot.bid("ada", 10, bid_id="old")) == [old.decode()]
    assert await lot.place(lot.bid("ada", 20, bid_id="old"), lot.bid("bob", 20, bid_id="old")) == ["K", "K"]
    for user in ("ada", None):
        stored = await read_verdict(lot.redis, lot.item_id, user, "old")
        assert stored is not None
        assert (stored.user_id, stored.line) == ("ada", old)
    assert await read_verdict(lot.redis, lot.item_id, "bob", "old") is None


async def test_the_recent_events_are_bounded(own_redis: Redis) -> None:
    lot = new_lot(own_redis, ScriptLimits(recent_events=5))
    await lot.open()
    for amount in range(1, 10):
        await lot.place(lot.bid("ada", amount))
    recent = await cast(Any, own_redis.lrange(recent_key(lot.item_id), 0, -1))
    assert [json.loads(event)["seq"] for event in recent] == [9, 8, 7, 6, 5]
