"""Whatever was bid, raised and struck: what is rebuilt after the loss of Redis is what was there, field by field."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import asyncpg
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from redis import Redis
from redis.asyncio import Redis as AsyncRedis

from api_gateway.reads.archive import Archive as BidsOfGateway
from archival_worker.consume.deliveries import read_delivery
from archival_worker.recovery.recover import Recovery
from archival_worker.store.archive import Archive
from shared import names
from shared.clients.postgres import open_postgres
from shared.clients.redis import open_redis
from shared.domain.auction import Terms
from shared.domain.bidding import Bid
from shared.domain.increments import Increment
from shared.domain.soft_close import SoftClose
from shared.messages import decode_event
from shared.redis_layout.accepted_log import decode_entry
from shared.redis_layout.keys import (
    accepted_key,
    bidders_key,
    closed_key,
    cursors_key,
    item_key,
    older_refusals_key,
    opened_key,
    outbox_key,
    refusals_key,
    verdicts_key,
)
from shared.redis_layout.verdicts import KEY_REUSED, AcceptedBid
from tests.histories import NOW_US, KeyedBid, Step, histories, terms
from tests.integration.archive.archive_world import migrated_database
from tests.integration.gateway.rules.rule_engine import CLOCK, ITEM, SHARD, Engine, rows_of
from tests.integration.gateway.rules.rule_model import Model
from tests.searching import examples
from tests.stack import running_stack

pytestmark = pytest.mark.integration

TABLES = ("items", "bids", "events", "sealed", "dead_letters", "recoveries")
REFUSALS = {refusals_key(ITEM).encode(), older_refusals_key(ITEM).encode()}
OF_THE_OUTBOX = {key(SHARD).encode() for key in (outbox_key, opened_key, cursors_key)}
NEVER_BACK = OF_THE_OUTBOX | {CLOCK.encode()} | REFUSALS

# Without shrinking: a history is short enough to read, and each further one is archived and rebuilt on real servers.
PHASES = (Phase.explicit, Phase.reuse, Phase.generate)

Stored = dict[bytes, Any]


@dataclass
class Ruin:
    """A shard that is driven by hand, the archive of what it sent, and the means to lose the one and to rebuild it."""

    engine: Engine
    redis: Any
    again: AsyncRedis
    archive: Archive
    runner: asyncio.Runner
    pool: asyncpg.Pool

    def begin(self, item_terms: Terms, *, at_us: int = NOW_US) -> None:
        self.engine.reset(item_terms, at_us)
        self.runner.run(self._forget())

    async def _forget(self) -> None:
        async with self.archive.transaction() as connection:
            await connection.execute(f"TRUNCATE {', '.join(TABLES)}")
            await connection.execute("UPDATE shard_cursors SET shard_epoch = 0, archived_n = 0, ahead = '{}'")

    def archive_all(self, order: list[bytes]) -> None:
        self.runner.run(self._archive_all(order))

    async def _archive_all(self, order: list[bytes]) -> None:
        deliveries = [read_delivery(names.subject_of(ITEM), message, "", None) for message in order]
        assert [delivery.fault for delivery in deliveries if delivery.fault] == []
        half = len(deliveries) // 2
        # The first half comes twice.
        for batch in (deliveries[:half], deliveries[half:], deliveries[:half]):
            stored = await self.archive.store(batch)
            assert stored.dead_letters == []
            assert stored.clashes == 0

    def assert_archive_knows_the_bids(self) -> None:
        """Every row has the status that the reference gives it, and who strikes a bid reads the log as Redis has it."""
        self.runner.run(self._assert_archive_knows_the_bids())

    async def _assert_archive_knows_the_bids(self) -> None:
        async with self.archive.connection() as connection:
            rows = await connection.fetch("SELECT bid_id, status FROM bids")
        expected = {bid_id: fate or "valid" for bid_id, (_, fate) in rows_of(self.engine.events()).items()}
        assert {row["bid_id"]: row["status"] for row in rows} == expected
        log = [replace(entry, position=0) for entry in self.engine.log()]
        bids = BidsOfGateway(self.pool)
        assert [entry async for _, entry in bids.accepted_bids(ITEM, after=None)] == log
        for entry in log[-1:]:
            found = await bids.accepted_bid(ITEM, entry.bid.bid_id)
            assert found == (None if entry.kind == "anew" else entry)

    def lose_and_recover(self) -> None:
        for key in self.redis.scan_iter(f"{{{SHARD}}}:*", count=1_000):
            self.redis.delete(key)
        told: list[str] = []
        report = self.runner.run(Recovery(self.again, self.archive, None, tell=told.append).run())
        assert (report.shards, report.items, report.paused) == ([SHARD], 1, {}), told

    def lines_of(self, key: bytes) -> list[Any]:
        decode: Any = decode_entry if key == accepted_key(ITEM).encode() else decode_event
        return [decode(line) for line in self.redis.lrange(key, 0, -1)]

    def everything(self) -> Stored:
        """Every key of the shard that a recovery is to bring back."""
        readers: dict[bytes, Any] = {
            b"hash": self.redis.hgetall,
            b"string": self.redis.get,
            b"list": self.lines_of,
            b"zset": lambda key: self.redis.zrange(key, 0, -1, withscores=True),
        }
        keys = set(self.redis.scan_iter(f"{{{SHARD}}}:*", count=1_000)) - NEVER_BACK
        found = {key: readers[self.redis.type(key)](key) for key in keys}
        # How long a struck item stays at least. Nobody keeps what was before a recovery: all caches see that.
        found.get(item_key(ITEM).encode(), {}).pop(b"returned_us", None)
        closed = closed_key(SHARD).encode()
        if closed in found:
            # The entries are those of the former outbox.
            found[closed] = [item_id for item_id, _ in found[closed]]
        return found


@pytest.fixture(scope="module")
def ruin() -> Iterator[Ruin]:
    with running_stack(services=()) as stack, asyncio.Runner() as runner:

        async def prepared() -> tuple[AsyncRedis, asyncpg.Pool]:
            url = await migrated_database(stack)
            return open_redis(stack.urls.redis_url), await open_postgres(url, name="recovery")

        again, pool = runner.run(prepared())
        with Redis.from_url(stack.urls.redis_url, protocol=2) as redis:
            for shard in set(names.SHARDS) - {SHARD}:  # they live: nobody loses these
                redis.hset(cursors_key(shard), mapping={"epoch": 1, "next": 0, "published": 0, "archived": 0})
            yield Ruin(Engine(redis), redis, again, Archive(pool), runner, pool)
        runner.run(again.aclose())
        runner.run(pool.close())


@dataclass
class Told:
    """What bidders were told under their keys, as far as it was an acceptance."""

    verdicts: dict[tuple[str, str], tuple[Bid, AcceptedBid]]
    owners: dict[str, str]

    def play(self, engine: Engine, steps: list[Step], voids: list[int | None]) -> int:
        """Run a history; every few steps a bid is struck. The time at its end."""
        now_us = NOW_US
        for step, void in zip(steps, voids, strict=True):
            now_us += step.elapsed_us
            engine.set_clock(now_us)
            if step.operation is not None:
                engine.operate(step.operation)
            for keyed, verdict in zip(step.bids, engine.place(step.bids), strict=True):
                if keyed.key is not None and isinstance(verdict, AcceptedBid):
                    self.verdicts.setdefault((keyed.bid.user_id, keyed.key), (keyed.bid, verdict))
                    if keyed.key_is_bid_id:
                        self.owners.setdefault(keyed.key, keyed.bid.user_id)
            placed = [entry.bid.bid_id for entry in engine.log()]
            if void is not None and placed:
                engine.void(placed[void % len(placed)])
        return now_us


def assert_counted(found: Stored, engine: Engine) -> None:
    """How many accepted bids of each person stand, as the log tells it: raised maxima are among them."""
    people = [entry.bid.user_id for entry in engine.log() if entry.kind != "anew" and not entry.is_struck]
    counts = found.get(bidders_key(ITEM).encode(), {})
    assert {user.decode(): int(count) for user, count in counts.items()} == Counter(people)
    item = found[item_key(ITEM).encode()]
    assert int(item[b"bids_counted"]) == int(item[b"accepted"]) - int(item[b"voids"]) == len(people)


def assert_rebuilt(before: Stored, after: Stored) -> None:
    item = item_key(ITEM).encode()
    assert int(after[item][b"epoch"]) == 2
    assert after[item] == before[item] | {b"epoch": b"2"}
    assert {key: value for key, value in after.items() if key != item} == {
        key: value for key, value in before.items() if key != item
    }


@st.composite
def lively_terms(draw: st.DrawFn) -> Terms:
    """Terms under which many bids are accepted, one after another."""
    reserve = draw(st.none() | st.integers(50, 400))
    return Terms(
        ITEM,
        NOW_US,
        start_price=draw(st.integers(0, 20)),
        reserve_price=reserve,
        buy_now_price=draw(st.none() | st.integers(max(reserve or 1, 300), 900)),
        increment=Increment("flat", draw(st.integers(1, 15))),
    )


# Made once: to make a strategy costs several times as much as to draw from it.
_LENGTHS = st.integers(4, 25)
_MORE = st.integers(0, 40)
_REACH = st.integers(0, 120)
_BIDDERS = st.tuples(
    st.sampled_from(["amount", "amount", "maximum", "both"]),
    st.sampled_from(["none", "bid_id", "header"]),
    st.sampled_from(("ada", "ada", "bob", "cyd")),
)
_HEADERS = st.integers(0, 20)
_ELAPSED_US = st.integers(0, 5)


@st.composite
def lively_histories(draw: st.DrawFn) -> list[Step]:
    """Bids around a price that rises, plain ones and maxima and raises of them, with and without keys."""
    steps = []
    for number in range(1, draw(_LENGTHS)):
        amount = number * 15 + draw(_MORE)
        maximum = amount + draw(_REACH)
        asked, kind, user = draw(_BIDDERS)
        key = {"none": None, "bid_id": f"bid-{number}", "header": f'"k\\{draw(_HEADERS)}"'}[kind]
        bid_id = f"bid-{number}" if kind == "bid_id" else f"~b-{number}"
        bid = Bid(bid_id, user, None if asked == "maximum" else amount, None if asked == "amount" else maximum)
        steps.append(Step(draw(_ELAPSED_US), None, (KeyedBid(bid, key, kind == "bid_id"),)))
    return steps


@settings(max_examples=examples(60), phases=PHASES)
@given(
    data=st.data(),
    item_terms=lively_terms() | lively_terms() | terms(),
    steps=lively_histories() | lively_histories() | histories(),
    later=lively_histories() | histories(),
)
def test_nothing_that_was_accepted_is_forgotten(
    ruin: Ruin, data: st.DataObject, item_terms: Terms, steps: list[Step], later: list[Step]
) -> None:
    ruin.begin(replace(item_terms, item_id=ITEM))
    struck = st.sampled_from([None] * 9 + [0, 1, 2, 5, 9])
    voids = data.draw(st.lists(struck, min_size=len(steps), max_size=len(steps)))
    told = Told({}, {})
    now_us = told.play(ruin.engine, steps, voids)
    before, state = ruin.everything(), ruin.engine.item().state
    assert_counted(before, ruin.engine)
    ruin.archive_all(data.draw(st.permutations(ruin.engine.messages())))
    ruin.assert_archive_knows_the_bids()

    ruin.lose_and_recover()
    assert_rebuilt(before, ruin.everything())
    rebuilt = ruin.engine.item()
    assert rebuilt.state == replace(state, epoch=2)

    model = Model(rebuilt.terms, rebuilt.state, dict(told.verdicts), dict(told.owners))
    for step in later:
        now_us += step.elapsed_us
        ruin.engine.set_clock(now_us)
        expected = [model.place(keyed, now_us) for keyed in step.bids]
        assert ruin.engine.place(step.bids) == expected
    assert ruin.engine.item().state == model.state


def test_who_bought_at_once_left_no_maximum(ruin: Ruin) -> None:
    ruin.begin(Terms(ITEM, NOW_US, start_price=14, buy_now_price=900, increment=Increment("flat", 9)))
    bought = KeyedBid(Bid("~b-1", "ada", 1_001, 5_000), "head-1", key_is_bid_id=False)
    Told({}, {}).play(ruin.engine, [Step(0, None, (bought,))], [None])
    before = ruin.everything()
    ruin.archive_all(ruin.engine.messages())
    ruin.lose_and_recover()
    assert_rebuilt(before, ruin.everything())


def test_the_terms_come_back_too(ruin: Ruin) -> None:
    soft = SoftClose(60_000_000, 120_000_000, "from_end", 3, NOW_US + 7_200_000_000)
    item_terms = Terms(ITEM, NOW_US, "EUR", "sel", 100, 5_000, 9_000, end_us=NOW_US + 3_600_000_000, soft_close=soft)
    ruin.begin(item_terms)
    before = ruin.engine.item()
    ruin.archive_all(ruin.engine.messages())
    ruin.lose_and_recover()
    after = ruin.engine.item()
    assert (after.terms, after.name) == (before.terms, before.name)


DAY_US = 86_400_000_000


@pytest.mark.parametrize(
    ("bid_ago_us", "cancelled_ago_us", "ttl_s"),
    [
        (60 * DAY_US, None, None),
        (60 * DAY_US, DAY_US // 24, 23 * 3_600),
        (60 * DAY_US, 2 * DAY_US, 0),
    ],
    ids=["takes bids since long", "over for an hour", "over for two days"],
)
def test_verdicts_come_back_for_as_long_as_they_are_kept(
    ruin: Ruin, bid_ago_us: int, cancelled_ago_us: int | None, ttl_s: int | None
) -> None:
    """An item without an end takes bids as long as one likes, and none of them may get an id that was given before."""
    now_us = time.time_ns() // 1_000
    # From the beginning: an item's time never goes back.
    ruin.begin(Terms(ITEM, 0), at_us=now_us - bid_ago_us)
    by_id = KeyedBid(Bid("mine", "ada", 100, None), "mine", key_is_bid_id=True)
    by_header = KeyedBid(Bid("~b-1", "bob", 200, None), "head", key_is_bid_id=False)
    told = ruin.engine.place((by_id, by_header))
    if cancelled_ago_us is not None:
        ruin.engine.set_clock(now_us - cancelled_ago_us)
        assert ruin.engine.operate("cancel")
    ruin.archive_all(ruin.engine.messages())
    ruin.lose_and_recover()
    ruin.engine.set_clock(now_us)
    left_s = ruin.redis.ttl(verdicts_key(ITEM))
    if ttl_s == 0:
        assert ruin.engine.kept() == {}
        return
    assert left_s == -1 if ttl_s is None else ttl_s - 60 < left_s <= ttl_s
    assert ruin.engine.place((by_id, by_header)) == told
    again = KeyedBid(Bid("mine", "eve", 900, None), "mine", key_is_bid_id=True)
    assert ruin.engine.place((again,)) == [KEY_REUSED]
