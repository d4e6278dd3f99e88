"""Group commit without a network: what each bid is told when a flush works, fails, or gets lost."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, cast

import pytest
from redis.exceptions import ConnectionError as RedisConnectionError

from api_gateway.engine.bids import committer as module
from api_gateway.engine.bids.batcher import PendingBid
from api_gateway.engine.bids.committer import Committer
from api_gateway.engine.bids.errors import ItemMissing
from api_gateway.engine.bids.pending_verdict import PendingVerdict
from api_gateway.engine.bids.queue_bound import QueueBound
from api_gateway.engine.bids.scripts import BidScripts, Decided
from shared.domain.errors import OutboxFull, OutcomeUnknown, Overloaded, Unavailable
from shared.names import shard_of
from shared.redis_layout.cursors import Lineage
from shared.redis_layout.keys import older_refusals_key, refusals_key, verdicts_key
from shared.redis_layout.stored_verdicts import StoredVerdict, field_of_bid_id, field_of_first, field_of_other
from tests.waiting import eventually

ACCEPTED = b"A|b|1|100|100|1|101|1|bid|1|5"
LINEAGE = Lineage("a run", 1)
REFUSED = b"R|TOO_LOW|100|0|101|1"


class FakeScripts:
    """``place`` as :class:`BidScripts` has it, answering what the test wants; flushes wait at ``gate``."""

    calls_per_item = 1

    def __init__(self, *answers: list[Decided | Exception] | Exception) -> None:
        self._answers = list(answers)
        self.flushed: list[list[list[str]]] = []
        self.gate = asyncio.Event()
        self.gate.set()

    async def place(self, calls: Sequence[Sequence[PendingBid]]) -> list[Decided | Exception]:
        self.flushed.append([[bid.bid_id for bid in call] for call in calls])
        await self.gate.wait()
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer


class FakeRedis:
    """The reads with which the outcome of a lost answer is looked up; ``stored`` by key and field."""

    def __init__(self, *, stored: dict[str, dict[str, bytes]] | None = None, recent: list[bytes] | None = None) -> None:
        self._stored = stored or {}
        self._recent = recent or []

    async def hmget(self, key: str, fields: list[str]) -> list[bytes | None]:
        return [self._stored.get(key, {}).get(field) for field in fields]

    async def lrange(self, key: str, first: int, last: int) -> list[bytes]:
        return self._recent[first : None if last == -1 else last + 1]


def kept(line: bytes, *, user: str = "ada", amount: int = 100) -> bytes:
    return StoredVerdict(user, f"{amount},", line).encode()


def bid(
    bid_id: str,
    *,
    user: str = "ada",
    item: str = "a",
    key: str | None = None,
    amount: int = 100,
    header: bool = False,
) -> PendingBid:
    return PendingBid(item, user, bid_id, amount, None, key, not header, PendingVerdict())


class Bench:
    """A running committer and what it told the relay."""

    def __init__(self, scripts: FakeScripts, redis: FakeRedis | None = None, **options: Any) -> None:
        self.outbox: list[tuple[str, int, int]] = []
        self.noticed: list[str] = []
        self.committer = Committer(
            cast(BidScripts, scripts),
            cast(Any, redis or FakeRedis()),
            bound=QueueBound(queue_max=options.pop("queue_max", 10), wait_s=0),
            resolve_s=options.pop("resolve_s", 0.05),
            on_outbox=self.noticed.append,
            on_given_out=lambda *place: self.outbox.append(place),
            **options,
        )
        self.task = asyncio.create_task(self.committer.run())

    async def stop(self) -> None:
        await self.committer.close()
        await asyncio.wait_for(self.task, 30)


async def test_verdicts_go_to_their_bids() -> None:
    bench = Bench(FakeScripts([Decided([ACCEPTED, REFUSED], 7, 7, Lineage("a run", 3))]))
    first, second = bid("x"), bid("y")
    bench.committer.place(first)
    bench.committer.place(second)
    assert await first.verdict == ACCEPTED
    assert await second.verdict == REFUSED
    assert bench.outbox == [(shard_of("a"), 3, 7)]
    assert bench.noticed == [shard_of("a")]
    assert (bench.committer.decided_total, bench.committer.flushes_total) == (2, 1)
    await bench.stop()


async def test_bids_that_come_during_a_flush_share_the_next_one() -> None:
    scripts = FakeScripts([Decided([REFUSED], 0, 0, LINEAGE)], [Decided([REFUSED] * 2, 0, 0, LINEAGE)])
    scripts.gate.clear()
    bench = Bench(scripts)
    bids = [bid("x"), bid("y"), bid("z")]
    bench.committer.place(bids[0])
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    bench.committer.place(bids[1])
    bench.committer.place(bids[2])
    scripts.gate.set()
    await asyncio.gather(*(one.verdict for one in bids))
    assert scripts.flushed == [[["x"]], [["y", "z"]]]
    await bench.stop()


def _tells(told: list[int], number: int) -> Callable[[], bool]:
    def tell() -> bool:
        told.append(number)
        return True

    return tell


async def test_for_each_bid_that_is_decided_one_that_is_shed_is_told() -> None:
    """However many clients come: else telling them would leave no time for the flushes."""
    scripts = FakeScripts([Decided([REFUSED] * 256, 0, 0, LINEAGE)], [Decided([REFUSED], 0, 0, LINEAGE)])
    scripts.gate.clear()
    bench = Bench(scripts, queue_max=10_000)
    told: list[int] = []
    for number in range(256):
        bench.committer.place(bid(f"b-{number}"))
    await eventually(lambda: len(scripts.flushed) == 1)
    bench.committer.place(bid("last"))
    for number in range(3_000):
        bench.committer.refuse(_tells(told, number))
    assert told == list(range(256)), "the first ones at once"
    scripts.gate.set()
    await eventually(lambda: not len(bench.committer))
    await eventually(lambda: len(told) == 3_000, "the others, also without another flush")
    assert told == list(range(3_000)), "in their order"
    await bench.stop()


async def test_who_waits_for_a_refusal_is_told_when_a_flush_stands_still_or_the_gateway_ends() -> None:
    scripts = FakeScripts([Decided([REFUSED], 0, 0, LINEAGE)])
    scripts.gate.clear()
    bench = Bench(scripts)
    bench.committer.place(bid("x"))
    told: list[int] = []
    for number in range(400):
        bench.committer.refuse(_tells(told, number))
    assert len(told) == 256
    await eventually(lambda: len(told) == 400)
    for number in range(600):
        bench.committer.refuse(_tells(told, number))
    assert len(told) < 1_000
    scripts.gate.set()
    await bench.stop()
    assert len(told) == 1_000
    bench.committer.refuse(_tells(told, 0))
    assert len(told) == 1_001


async def test_who_has_gone_takes_nobodys_place_among_those_who_are_told() -> None:
    """Clients that hang up and come again would else make the others wait, for as long as they like."""
    scripts = FakeScripts([Decided([REFUSED], 0, 0, LINEAGE)])
    scripts.gate.clear()
    bench = Bench(scripts)
    bench.committer.place(bid("x"))
    told: list[int] = []
    for number in range(256):
        bench.committer.refuse(_tells(told, number))
    for _ in range(5_000):
        bench.committer.refuse(lambda: False)
    bench.committer.refuse(_tells(told, 256))
    assert len(told) == 256
    scripts.gate.set()
    await eventually(lambda: bench.committer.flushes_total == 1 and not bench.committer.told_later)
    assert told == list(range(257))
    await bench.stop()


async def test_how_many_wait_for_a_refusal_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where clients hang up while they wait, so that connections bound nothing."""
    monkeypatch.setattr(module, "_REFUSALS_MAX", 10)
    scripts = FakeScripts([Decided([REFUSED], 0, 0, LINEAGE)])
    scripts.gate.clear()
    bench = Bench(scripts)
    bench.committer.place(bid("x"))
    told: list[int] = []
    for number in range(300):
        bench.committer.refuse(_tells(told, number))
    assert told == [*range(256), *range(266, 300)], "all but ten, who wait"
    assert bench.committer.told_later == 10
    scripts.gate.set()
    await bench.stop()
    assert len(told) == 300


async def test_a_full_queue_sheds_at_once() -> None:
    scripts = FakeScripts([Decided([REFUSED], 0, 0, LINEAGE)])
    scripts.gate.clear()
    bench = Bench(scripts, queue_max=1)
    bench.committer.place(bid("x"))
    assert bench.committer.sheds()
    with pytest.raises(Overloaded):
        bench.committer.place(bid("y"))
    scripts.gate.set()
    await bench.stop()
    with pytest.raises(Overloaded):
        bench.committer.place(bid("z"))
    assert bench.committer.sheds()
    assert bench.committer.shed_total == 4


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


async def test_accepted_bids_wait_for_their_confirmation_and_refused_ones_do_not() -> None:
    asked: list[tuple[Lineage, int]] = []
    confirmed = asyncio.Event()

    async def confirm(shard: str, lineage: Lineage, entry: int) -> None:
        asked.append((lineage, entry))
        await confirmed.wait()

    bench = Bench(FakeScripts([Decided([ACCEPTED, REFUSED], 0, 12, LINEAGE)]), confirm=confirm)
    accepted, refused = bid("x"), bid("y")
    bench.committer.place(accepted)
    bench.committer.place(refused)
    assert await refused.verdict == REFUSED
    assert not accepted.verdict.done()
    confirmed.set()
    assert await accepted.verdict == ACCEPTED
    # A stored verdict is confirmed by the shard's newest entry, since its own is not known.
    assert asked == [(LINEAGE, 12)]
    await bench.stop()


async def test_without_a_confirmation_an_accepted_bid_is_unknown_and_a_refused_one_is_refused() -> None:
    async def confirm(shard: str, lineage: Lineage, entry: int) -> None:
        raise OutcomeUnknown

    bench = Bench(FakeScripts([Decided([ACCEPTED, REFUSED], 3, 3, LINEAGE)]), confirm=confirm)
    accepted, refused = bid("x"), bid("y")
    bench.committer.place(accepted)
    bench.committer.place(refused)
    assert await refused.verdict == REFUSED
    with pytest.raises(OutcomeUnknown):
        await accepted.verdict
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


async def test_the_end_waits_for_those_who_wait_for_their_confirmation() -> None:
    """Whoever closes the committer closes Redis next."""
    confirmed = asyncio.Event()

    async def confirm(shard: str, lineage: Lineage, entry: int) -> None:
        await confirmed.wait()

    bench = Bench(FakeScripts([Decided([ACCEPTED], 3, 3, LINEAGE)]), confirm=confirm, resolve_s=30)
    one = bid("x")
    bench.committer.place(one)
    await eventually(lambda: bool(bench.committer._answering))
    closing = asyncio.create_task(bench.committer.close())
    for _ in range(5):
        await asyncio.sleep(0)
    assert not closing.done()
    confirmed.set()
    await asyncio.wait_for(closing, 10)
    assert one.verdict.done()
    await bench.stop()


async def test_a_bug_does_not_stop_the_only_flusher() -> None:
    bench = Bench(FakeScripts([], [Decided([REFUSED], 0, 0, LINEAGE)]))  # one answer too few
    first = bid("x")
    bench.committer.place(first)
    with pytest.raises(OutcomeUnknown):
        await first.verdict
    second = bid("y")
    bench.committer.place(second)
    assert await second.verdict == REFUSED
    await bench.stop()


async def test_a_cancellation_out_of_the_driver_leaves_no_bid_without_an_answer() -> None:
    """Nobody cancelled the committer: its supervisor begins it anew, and bids that wait are decided then."""
    cancelled = cast(Exception, asyncio.CancelledError())
    scripts = FakeScripts([cancelled], [Decided([REFUSED], 0, 0, LINEAGE)])

    async def place(calls: Sequence[Sequence[PendingBid]]) -> list[Decided | Exception]:
        answers = await FakeScripts.place(scripts, calls)
        if answers == [cancelled]:
            raise asyncio.CancelledError
        return answers

    scripts.place = place  # type: ignore[method-assign]
    scripts.gate.clear()
    bench = Bench(scripts)
    first, second = bid("x"), bid("y")
    bench.committer.place(first)
    await asyncio.sleep(0.01)
    bench.committer.place(second)
    scripts.gate.set()
    with pytest.raises(OutcomeUnknown):
        await asyncio.wait_for(first.verdict, 30)
    await asyncio.wait([bench.task], timeout=30)
    assert bench.task.cancelled(), "its supervisor hears of it"
    bench.task = asyncio.create_task(bench.committer.run())
    assert await asyncio.wait_for(second.verdict, 30) == REFUSED
    await bench.stop()
