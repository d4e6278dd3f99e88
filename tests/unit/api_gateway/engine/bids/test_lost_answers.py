"""Group commit when the answer to a flush is lost: each bid is told what became of it, or that this is unknown."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from api_gateway.engine.bids.errors import ItemMissing
from api_gateway.engine.bids.scripts import Decided
from shared.domain.errors import OutboxFull, OutcomeUnknown, Unavailable
from shared.names import shard_of
from shared.redis_layout.keys import older_refusals_key, refusals_key, verdicts_key
from shared.redis_layout.stored_verdicts import field_of_bid_id, field_of_first, field_of_other
from tests.unit.api_gateway.engine.bids.bench import (
    ACCEPTED,
    LINEAGE,
    REFUSED,
    Bench,
    FakeRedis,
    FakeScripts,
    bid,
    kept,
)


@pytest.mark.parametrize("error", [Unavailable("away"), OutboxFull("full"), ItemMissing()])
async def test_what_is_known_to_have_changed_nothing_is_said_as_it_is(error: Exception) -> None:
    bench = Bench(FakeScripts(error if isinstance(error, Unavailable) else [error], [error]))
    one = bid("x")
    bench.committer.place(one)
    with pytest.raises(type(error)):
        await one.verdict
    await bench.stop()


async def test_a_lost_answer_is_found_under_the_key() -> None:
    stored = {
        verdicts_key("a"): {
            field_of_bid_id("x"): kept(ACCEPTED),
            # The key was used before with another amount.
            field_of_bid_id("y"): kept(ACCEPTED, amount=999),
            # Somebody else's bid has this id: ours was told so, or would be.
            field_of_bid_id("z"): kept(ACCEPTED, user="bob"),
            field_of_first("h"): kept(ACCEPTED, user="bob"),
            field_of_other("ada", "h"): kept(ACCEPTED + b"0"),
        },
        refusals_key("a"): {field_of_first("r"): kept(REFUSED)},
        older_refusals_key("a"): {field_of_bid_id("o"): kept(REFUSED + b"0")},
    }
    bench = Bench(FakeScripts(OutcomeUnknown()), FakeRedis(stored=stored), queue_max=20)
    sent = {key: bid(key, key=key) for key in "xyzo"} | {key: bid(f"~{key}", key=key, header=True) for key in "hr"}
    # A header key is nobody else's business: not that of a bid id, and not of another bidder's header.
    unknown = [bid("~1", key="z", header=True), bid("h", key="h"), bid("n", key="n")]
    unknown[1].user_id = "cyd"
    for one in (*sent.values(), *unknown):
        bench.committer.place(one)
    found = {key: await one.verdict for key, one in sent.items()}
    assert found == {"x": ACCEPTED, "y": b"K", "z": b"K", "h": ACCEPTED + b"0", "r": REFUSED, "o": REFUSED + b"0"}
    for one in unknown:
        with pytest.raises(OutcomeUnknown):
            await one.verdict
    await bench.stop()


class MovingRedis(FakeRedis):
    """The refusals become the older ones after the first read, as they do when there are many."""

    async def hmget(self, key: str, fields: list[str]) -> list[bytes | None]:
        found = await super().hmget(key, fields)
        if (moved := self._stored.pop(refusals_key("a"), None)) is not None:
            self._stored[older_refusals_key("a")] = moved
        return found


async def test_a_refusal_that_moves_while_it_is_looked_for_is_found() -> None:
    redis = MovingRedis(stored={refusals_key("a"): {field_of_bid_id("x"): kept(REFUSED)}})
    bench = Bench(FakeScripts(OutcomeUnknown()), redis)
    one = bid("x", key="x")
    bench.committer.place(one)
    assert await one.verdict == REFUSED
    await bench.stop()


async def test_one_item_whose_outcome_is_unknown_is_looked_up_and_the_others_are_answered() -> None:
    stored = {verdicts_key("a"): {field_of_bid_id("x"): kept(ACCEPTED)}}
    bench = Bench(FakeScripts([OutcomeUnknown(), Decided([REFUSED], 0, 0, LINEAGE)]), FakeRedis(stored=stored))
    lost, answered = bid("x", key="x"), bid("y", item="b", key="y")
    bench.committer.place(lost)
    bench.committer.place(answered)
    assert await answered.verdict == REFUSED
    assert await lost.verdict == ACCEPTED
    await bench.stop()


async def test_the_event_of_somebody_else_is_no_answer() -> None:
    """Two bidders, one bid id: only the bidder of the event was accepted."""
    event = (
        b'{"type":"bid","item_id":"a","epoch":1,"seq":4,"ts_us":9,"bid_id":"x","user_id":"bob","kind":"bid",'
        b'"amount":100,"previous_bid":50,"current_bid":100,"highest_bidder_id":"bob","bid_count":4,"min_next_bid":101,'
        b'"status":"open","end_us":null,"reserve_met":true,"currency":"USD"}'
    )
    bench = Bench(FakeScripts(OutcomeUnknown()), FakeRedis(recent=[event]))
    one = bid("x")
    bench.committer.place(one)
    with pytest.raises(OutcomeUnknown):
        await one.verdict
    await bench.stop()


async def test_a_lost_answer_is_found_among_the_recent_events() -> None:
    event = (
        b'{"type":"bid","item_id":"a","epoch":1,"seq":4,"ts_us":9,"bid_id":"x","user_id":"ada","kind":"bid",'
        b'"amount":100,"previous_bid":50,"current_bid":100,"highest_bidder_id":"ada","bid_count":4,"min_next_bid":101,'
        b'"status":"open","end_us":null,"reserve_met":true,"currency":"USD"}'
    )
    mine, foreign, lost = bid("x"), bid("x-of-bob"), bid("z")
    bench = Bench(FakeScripts(OutcomeUnknown()), FakeRedis(recent=[b"not an event", event]))
    for one in (mine, foreign, lost):
        bench.committer.place(one)
    assert await mine.verdict == b"A|x|4|100|100|1|101|1|bid|1|9"
    for one in (foreign, lost):
        with pytest.raises(OutcomeUnknown):
            await one.verdict
    await bench.stop()


async def test_a_lost_answer_promises_no_more_than_any_other() -> None:
    safe = asyncio.Event()
    asked: list[str] = []

    async def secure(shard: str) -> None:
        asked.append(shard)
        await safe.wait()

    async def never(shard: str) -> None:
        raise OutcomeUnknown

    stored = {
        verdicts_key("a"): {field_of_bid_id("x"): kept(ACCEPTED)},
        refusals_key("a"): {field_of_bid_id("y"): kept(REFUSED)},
    }
    bench = Bench(FakeScripts(OutcomeUnknown(), OutcomeUnknown()), FakeRedis(stored=stored), secure=secure)
    accepted, refused = bid("x", key="x"), bid("y", key="y")
    bench.committer.place(accepted)
    bench.committer.place(refused)
    assert await refused.verdict == REFUSED
    assert not accepted.verdict.done()
    safe.set()
    assert await accepted.verdict == ACCEPTED
    assert asked == [shard_of("a")]
    await bench.stop()

    bench = Bench(FakeScripts(OutcomeUnknown()), FakeRedis(stored=stored), secure=never)
    accepted, refused = bid("x", key="x"), bid("y", key="y")
    bench.committer.place(accepted)
    bench.committer.place(refused)
    assert await refused.verdict == REFUSED
    with pytest.raises(OutcomeUnknown):
        await accepted.verdict
    await bench.stop()


class FailingRedis(FakeRedis):
    """Redis is away for a moment."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.fails = 2

    async def hmget(self, key: str, fields: list[str]) -> list[bytes | None]:
        if self.fails:
            self.fails -= 1
            raise RedisConnectionError("away")
        return await super().hmget(key, fields)


async def test_a_lost_answer_is_looked_up_until_redis_and_whoever_secures_it_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("api_gateway.engine.bids.committer._RESOLVE_PAUSE_S", 0.001)
    asked: list[str] = []

    async def secure(shard: str) -> None:
        asked.append(shard)
        if len(asked) < 3:
            raise TimeoutError

    redis = FailingRedis(stored={verdicts_key("a"): {field_of_bid_id("x"): kept(ACCEPTED)}})
    bench = Bench(FakeScripts(OutcomeUnknown()), redis, secure=secure, resolve_s=30)
    one = bid("x", key="x")
    bench.committer.place(one)
    assert await one.verdict == ACCEPTED
    assert (redis.fails, len(asked)) == (0, 3)
    await bench.stop()
