"""What the script keeps under keys: never an acceptance without its event, for how long, and how much of refusals."""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, cast

import pytest
import pytest_asyncio
from redis.asyncio import Redis

from api_gateway.engine.bids.batcher import PendingBid
from api_gateway.engine.bids.pending_verdict import PendingVerdict
from api_gateway.engine.bids.scripts import BidScripts, Decided
from api_gateway.engine.bids.stored import read_verdict
from api_gateway.engine.creation.new_item import NewItem, created_members
from api_gateway.engine.item_scripts import ItemScripts, ScriptLimits
from api_gateway.engine.memory import MemoryWatch
from api_gateway.engine.relay.shard_scripts import ShardScripts
from shared import names
from shared.clients.redis import open_redis
from shared.domain.auction import Terms
from shared.domain.errors import OutboxFull, OutcomeUnknown, StateConflict, Unavailable
from shared.domain.increments import Increment
from shared.domain.soft_close import SoftClose
from shared.redis_layout.item_hash import item_fields
from shared.redis_layout.keys import (
    bidders_key,
    cursors_key,
    deadlines_key,
    item_key,
    older_refusals_key,
    opened_key,
    outbox_key,
    proxies_key,
    recent_key,
    refusals_key,
    verdicts_key,
)
from shared.redis_layout.limits import VERDICT_KEEP_S
from tests.tcp import Way, relay, serving

pytestmark = pytest.mark.asyncio(loop_scope="module")

_numbers = itertools.count(1)
SMALL = ScriptLimits(refusals_kept=16, refusals_kept_of_one=4)


@dataclass
class Lot:
    """One item on a Redis of its own, driven by the scripts alone."""

    redis: Redis
    item_id: str
    limits: ScriptLimits = field(default_factory=ScriptLimits)

    def __post_init__(self) -> None:
        self.shard = names.shard_of(self.item_id)
        self.items = ItemScripts(self.redis, self.limits)
        self.shards = ShardScripts(self.redis)
        self._bids = BidScripts(self.redis, self.limits, timeout_s=10)

    async def open(self, **terms: Any) -> None:
        length_us = terms.pop("length_us", None)
        item = Terms(self.item_id, 0, increment=Increment("flat", 1), end_us=length_us, **terms)
        await self.shards.init_shard(self.shard)
        answer = await self.items.open_item(
            self.item_id,
            start_us=None,
            end_us=None,
            length_us=length_us,
            event_members=created_members(NewItem(item, name="Lot")),
            fields=item_fields(item, name="Lot", description=""),
        )
        assert answer.created

    async def call(self, *bids: PendingBid) -> Decided | Exception:
        """One call of the script."""
        try:
            (result,) = await self._bids.place([list(bids)])
        finally:
            await self._bids.close()
        return result

    async def place(self, *bids: PendingBid) -> list[str]:
        result = await self.call(*bids)
        assert isinstance(result, Decided), result
        return [verdict.decode() for verdict in result.verdicts]

    def bid(self, user: str, amount: int, maximum: int | None = None, *, bid_id: str = "", key: str = "") -> PendingBid:
        """``bid_id`` from the body, or ``key`` from the header, or neither."""
        future = PendingVerdict()
        made = bid_id or f"~test-{next(_numbers):x}"
        return PendingBid(self.item_id, user, made, amount, maximum, bid_id or key or None, bool(bid_id), future)

    async def placed(self) -> dict[str, int]:
        """The bids of the outbox and their numbers: those of events, and those that were sealed without one."""
        found: dict[str, int] = {}
        entries: Any = await self.redis.xrange(outbox_key(self.shard))
        for _, fields in entries:
            if fields[b"item"] == self.item_id.encode():
                for event in json.loads(fields[b"events"]) + json.loads(fields.get(b"sealed", b"[]")):
                    found.setdefault(event.get("bid_id"), event["seq"])
        return found

    async def hash(self, key: str) -> dict[bytes, bytes]:
        return cast("dict[bytes, bytes]", await cast(Any, self.redis.hgetall(key)))

    async def refusals_kept(self) -> int:
        kept = 0
        for key in (refusals_key(self.item_id), older_refusals_key(self.item_id)):
            kept += sum(1 for name in await self.hash(key) if name.startswith((b"b:", b"h:", b"u:")))
        return kept


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    """A database of its own in the shared server: here whole shards are spoilt."""
    async with Redis.from_url(redis_url.rpartition("/")[0] + "/7", protocol=2) as client:
        await client.flushdb()
        yield client
        await client.flushdb()


@pytest_asyncio.fixture(loop_scope="module")
async def lot(redis: Redis) -> Lot:
    return Lot(redis, f"lot-{next(_numbers)}")


# ------------------------------------------------------------------------------------------------ the order of writes


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


# ---------------------------------------------------------------------------------------------------- within one call


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


# ---------------------------------------------------------------------------------------------------------- lifetimes


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


# ----------------------------------------------------------------------------------------------------------- refusals


async def test_one_bidders_refusals_are_bounded_and_drop_nobody_elses(redis: Redis) -> None:
    lot = Lot(redis, f"lot-{next(_numbers)}", SMALL)
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


async def test_the_refusals_of_an_item_are_bounded(redis: Redis) -> None:
    lot = Lot(redis, f"lot-{next(_numbers)}", SMALL)
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


# ------------------------------------------------------------------------------------------------------- before hashes


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


# ------------------------------------------------------------------------------------------------------------- bounds


async def test_the_recent_events_are_bounded(redis: Redis) -> None:
    lot = Lot(redis, f"lot-{next(_numbers)}", ScriptLimits(recent_events=5))
    await lot.open()
    for amount in range(1, 10):
        await lot.place(lot.bid("ada", amount))
    recent = await cast(Any, redis.lrange(recent_key(lot.item_id), 0, -1))
    assert [json.loads(event)["seq"] for event in recent] == [9, 8, 7, 6, 5]


async def test_the_outbox_takes_exactly_as_many_entries_as_it_may(redis: Redis) -> None:
    lot = Lot(redis, f"lot-{next(_numbers)}", ScriptLimits(outbox_entries_max=3))
    await redis.delete(outbox_key(lot.shard), cursors_key(lot.shard))
    await lot.open()
    for amount in (1, 2):
        await lot.place(lot.bid("ada", amount))
    assert isinstance(await lot.call(lot.bid("ada", 3)), OutboxFull)
    assert await redis.xlen(outbox_key(lot.shard)) == 3
    with pytest.raises(OutboxFull):
        await lot.items.transition("pause", lot.item_id, reason="x", by="op")
    neighbour = Lot(redis, next(f"x{n}" for n in range(10_000) if names.shard_of(f"x{n}") == lot.shard), lot.limits)
    with pytest.raises(OutboxFull):
        await neighbour.open()
    assert await redis.xlen(outbox_key(lot.shard)) == 3
    await cast(Any, redis.hset(cursors_key(lot.shard), "archived", "1"))
    await lot.place(lot.bid("ada", 3))
    assert isinstance(await lot.call(lot.bid("ada", 4)), OutboxFull)


async def test_little_room_in_redis_is_told_before_bids_are_refused(
    redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    watch = MemoryWatch(redis)
    await watch.look()
    assert watch.shortage is None, "without a bound there is always room"
    used = watch.used_bytes
    try:
        await redis.config_set("maxmemory", used * 4)
        await watch.look()
        assert watch.shortage is None
        await redis.config_set("maxmemory", int(used * 1.15))
        with caplog.at_level(logging.WARNING):
            await watch.look()
            await watch.look()
        assert watch.shortage is not None
        assert "maxmemory" in watch.shortage
        assert [record.levelname for record in caplog.records] == ["ERROR"], "told once, not at every look"
        await redis.config_set("maxmemory", used * 4)
        with caplog.at_level(logging.WARNING):
            await watch.look()
        assert watch.shortage is None
        assert caplog.records[-1].levelname == "WARNING"
    finally:
        await redis.config_set("maxmemory", "0")
