"""What the script keeps under keys: never an acceptance without its event, for how long, and how much of refusals."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Literal, cast

import pytest
from redis.asyncio import Redis

from api_gateway.engine.bids.batcher import PendingBid
from api_gateway.engine.bids.scripts import BidScripts, Decided
from api_gateway.engine.item_scripts import ScriptLimits
from api_gateway.engine.memory import MemoryWatch
from shared import names
from shared.clients.redis import open_redis
from shared.domain.errors import OutboxFull, OutcomeUnknown, StateConflict, Unavailable
from shared.domain.soft_close import SoftClose
from shared.redis_layout.keys import (
    bidders_key,
    cursors_key,
    deadlines_key,
    item_key,
    opened_key,
    outbox_key,
    proxies_key,
    recent_key,
    verdicts_key,
)
from tests.integration.gateway.bids.lot import Lot, new_lot
from tests.tcp import Way, relay, serving

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def _ahead(lot: Lot) -> Callable[[], Awaitable[Any]]:
    """The outbox has an entry that the counter has not come to: XADD is refused."""
    await lot.redis.xadd(outbox_key(lot.shard), {"item": "x", "events": "[]"}, id="900-0")
    return lambda: lot.redis.delete(outbox_key(lot.shard))


def _of_another_type(key_of: Callable[[Lot], str]) -> Callable[[Lot], Awaitable[Callable[[], Awaitable[Any]]]]:
    async def spoil(lot: Lot) -> Callable[[], Awaitable[Any]]:
        key = key_of(lot)
        await lot.redis.delete(key)
        await lot.redis.set(key, "not what it should be")
        return lambda: lot.redis.delete(key)

    return spoil


FAILURES = {
    "the outbox is ahead": _ahead,
    "outbox": _of_another_type(lambda lot: outbox_key(lot.shard)),
    "verdicts": _of_another_type(lambda lot: verdicts_key(lot.item_id)),
    "recent": _of_another_type(lambda lot: recent_key(lot.item_id)),
    "proxies": _of_another_type(lambda lot: proxies_key(lot.item_id)),
    "bidders": _of_another_type(lambda lot: bidders_key(lot.item_id)),
    "deadlines": _of_another_type(lambda lot: deadlines_key(lot.shard)),
}
BEFORE_ANY_WRITE = ("the outbox is ahead", "outbox", "verdicts")


@pytest.mark.parametrize("failure", FAILURES)
async def test_whatever_fails_in_a_call_no_verdict_is_kept_without_its_event(lot: Lot, failure: str) -> None:
    """Row 37. Each failure is real: Redis refuses one command, and undoes none of those before it."""
    soft = SoftClose(trigger_us=3_600_000_000, extend_us=7_200_000_000, mode="from_bid", max_count=0, hard_end_us=None)
    await lot.open(length_us=60_000_000, soft_close=soft, start_price=100)

    def bids() -> Sequence[PendingBid]:
        return (
            lot.bid("ada", 50, key="low"),
            lot.bid("ada", 100, 400, bid_id="first"),
            lot.bid("bob", 300, key="second"),
            lot.bid("ada", 350, bid_id="third"),
        )

    repair = await FAILURES[failure](lot)
    before, cursors = await lot.hash(item_key(lot.item_id)), await lot.hash(cursors_key(lot.shard))
    result = await lot.call(*bids())
    assert isinstance(result, OutcomeUnknown)
    if failure in BEFORE_ANY_WRITE:
        assert await lot.hash(item_key(lot.item_id)) == before
        assert await lot.hash(cursors_key(lot.shard)) == cursors
    await repair()

    # What is kept is what a repeat is told. Each acceptance has its event, or the repeat itself has made it one.
    numbers = []
    for bid in bids():
        (verdict,) = await lot.place(bid)
        if not verdict.startswith("R"):
            mark, bid_id, seq, *_ = verdict.split("|")
            assert mark in ("A", "M")
            assert (await lot.placed()).get(bid_id) == int(seq), f"{verdict} has no event"
            numbers.append(int(seq))
    assert len(numbers) == 3, "the three good bids are accepted, once each"
    assert numbers == sorted(set(numbers))
    # And the state is that of the events.
    item = await lot.hash(item_key(lot.item_id))
    assert int(item[b"seq"]) == max((await lot.placed()).values())


async def test_full_memory_is_seen_before_anything_is_written(lot: Lot) -> None:
    await lot.open(start_price=100)
    await lot.place(lot.bid("ada", 100, bid_id="first"))
    before = await lot.hash(item_key(lot.item_id))
    await lot.redis.config_set("maxmemory", "1")
    try:
        assert isinstance(await lot.call(lot.bid("bob", 500, 900, bid_id="second")), Unavailable)
        mixed = await lot.call(lot.bid("bob", 1, bid_id="low"), lot.bid("bob", 500, bid_id="second"))
        assert isinstance(mixed, Unavailable)
        # Whoever was accepted, or is refused, is told so.
        assert (await lot.place(lot.bid("ada", 100, bid_id="first")))[0].startswith("A|first|1|")
        assert (await lot.place(lot.bid("bob", 1, bid_id="low")))[0].startswith("R|TOO_LOW|")
    finally:
        await lot.redis.config_set("maxmemory", "0")
    assert await lot.hash(item_key(lot.item_id)) == before
    assert await lot.refusals_kept() == 0
    assert (await lot.place(lot.bid("bob", 500, 900, bid_id="second")))[0].startswith("A|second|2|")


async def test_an_item_is_not_opened_without_its_event(lot: Lot) -> None:
    await lot.shards.init_shard(lot.shard)
    await lot.redis.xadd(outbox_key(lot.shard), {"item": "x", "events": "[]"}, id="900-0")
    with pytest.raises(Exception, match="XADD"):
        await lot.open()
    assert not await lot.redis.exists(item_key(lot.item_id))
    await lot.redis.delete(outbox_key(lot.shard))
    await lot.open()


async def test_an_item_that_was_opened_is_named_by_the_number_of_its_event(lot: Lot) -> None:
    """Whoever asks for an item that Redis has lost finds it there until the archive has it."""
    await lot.open()
    entries: Any = await lot.redis.xrange(outbox_key(lot.shard))
    [opening] = [entry_id for entry_id, fields in entries if fields[b"item"] == lot.item_id.encode()]
    assert await lot.redis.zscore(opened_key(lot.shard), lot.item_id) == int(opening.partition(b"-")[0])


@pytest.mark.parametrize("operation", ["pause", "resume", "cancel"])
async def test_between_its_end_and_its_close_an_item_is_closed_to_operators_too(
    lot: Lot, operation: Literal["pause", "resume", "cancel"]
) -> None:
    """A pause then would sell for longer what somebody has won."""
    await lot.open(length_us=100_000)
    await lot.place(lot.bid("ada", 10))
    await asyncio.sleep(0.2)
    before = await lot.hash(item_key(lot.item_id))
    with pytest.raises(StateConflict, match="is closed"):
        await lot.items.transition(operation, lot.item_id, reason="x", by="op")
    assert await lot.hash(item_key(lot.item_id)) == before


async def test_two_bids_of_one_call_under_one_key_are_one(lot: Lot) -> None:
    await lot.open()
    verdicts = await lot.place(
        lot.bid("ada", 10, bid_id="k"),
        lot.bid("ada", 10, bid_id="k"),
        lot.bid("ada", 11, bid_id="k"),
        lot.bid("bob", 20, bid_id="k"),
        lot.bid("bob", 20, key="k"),
        lot.bid("bob", 20, key="k"),
        lot.bid("cyd", 30, key="k"),
        lot.bid("cyd", 1, key="low"),
        lot.bid("cyd", 40, key="low"),
    )
    assert verdicts[0] == verdicts[1]
    assert (verdicts[2], verdicts[3], verdicts[8]) == ("K", "K", "K")
    assert verdicts[4] == verdicts[5]
    assert [verdicts[at].split("|")[2] for at in (0, 4, 6)] == ["1", "2", "3"]
    assert verdicts[7].startswith("R|TOO_LOW")
    # The same from what was stored.
    again = await lot.place(lot.bid("ada", 10, bid_id="k"), lot.bid("bob", 20, key="k"), lot.bid("cyd", 30, key="k"))
    assert again == [verdicts[0], verdicts[4], verdicts[6]]


async def test_an_answer_that_comes_too_late_is_not_taken_for_that_of_the_next_flush(lot: Lot) -> None:
    may_answer = asyncio.Event()
    may_answer.set()

    async def in_time(way: Way, data: bytes) -> bytes:
        if way == "answers":
            await may_answer.wait()
        return data

    async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await relay(reader, writer, lot.redis.connection_pool.connection_kwargs["port"], in_time)

    await lot.open()
    async with serving(pass_on) as port:
        redis = open_redis(f"redis://127.0.0.1:{port}/7")
        scripts = BidScripts(redis, lot.limits, timeout_s=4)
        try:
            await scripts.place([[lot.bid("ada", 10)]])  # from here on Redis knows the script
            may_answer.clear()
            with pytest.raises(OutcomeUnknown):
                await scripts.place([[lot.bid("bob", 20)]])
            may_answer.set()
            (told,) = await scripts.place([[lot.bid("cyd", 1)]])
        finally:
            await scripts.close()
            await redis.aclose()
    assert isinstance(told, Decided)
    assert [verdict.partition(b"|")[0] for verdict in told.verdicts] == [b"R"], "bob's bid was accepted, cyd's was not"


async def test_the_outbox_takes_exactly_as_many_entries_as_it_may(own_redis: Redis) -> None:
    lot = new_lot(own_redis, ScriptLimits(outbox_entries_max=3))
    await own_redis.delete(outbox_key(lot.shard), cursors_key(lot.shard))
    await lot.open()
    for amount in (1, 2):
        await lot.place(lot.bid("ada", amount))
    assert isinstance(await lot.call(lot.bid("ada", 3)), OutboxFull)
    assert await own_redis.xlen(outbox_key(lot.shard)) == 3
    with pytest.raises(OutboxFull):
        await lot.items.transition("pause", lot.item_id, reason="x", by="op")
    neighbour = Lot(own_redis, next(f"x{n}" for n in range(10_000) if names.shard_of(f"x{n}") == lot.shard), lot.limits)
    with pytest.raises(OutboxFull):
        await neighbour.open()
    assert await own_redis.xlen(outbox_key(lot.shard)) == 3
    await cast(Any, own_redis.hset(cursors_key(lot.shard), "archived", "1"))
    await lot.place(lot.bid("ada", 3))
    assert isinstance(await lot.call(lot.bid("ada", 4)), OutboxFull)


async def test_little_room_in_redis_is_told_before_bids_are_refused(
    own_redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    watch = MemoryWatch(own_redis)
    await watch.look()
    assert watch.shortage is None, "without a bound there is always room"
    used = watch.used_bytes
    try:
        await own_redis.config_set("maxmemory", used * 4)
        await watch.look()
        assert watch.shortage is None
        await own_redis.config_set("maxmemory", int(used * 1.15))
        with caplog.at_level(logging.WARNING):
            await watch.look()
            await watch.look()
        assert watch.shortage is not None
        assert "maxmemory" in watch.shortage
        assert [record.levelname for record in caplog.records] == ["ERROR"], "told once, not at every look"
        await own_redis.config_set("maxmemory", used * 4)
        with caplog.at_level(logging.WARNING):
            await watch.look()
        assert watch.shortage is None
        assert caplog.records[-1].levelname == "WARNING"
    finally:
        await own_redis.config_set("maxmemory", "0")
