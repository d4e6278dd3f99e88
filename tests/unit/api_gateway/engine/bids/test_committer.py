"""Group commit without a network: what each bid is told when a flush works, fails, or gets lost."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from typing import cast

import pytest

from api_gateway.engine.bids.batcher import PendingBid
from api_gateway.engine.bids.errors import ItemMissing
from api_gateway.engine.bids.refusals import AT_ONCE_BUSY, AT_ONCE_IDLE
from api_gateway.engine.bids.scripts import Decided
from shared.domain.errors import OutcomeUnknown, Overloaded, Unavailable
from shared.names import shard_of
from shared.redis_layout.cursors import Lineage
from tests.unit.api_gateway.engine.bids.bench import ACCEPTED, LINEAGE, REFUSED, Bench, FakeScripts, bid
from tests.unit.api_gateway.engine.bids.test_refusals import tells
from tests.waiting import eventually


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


async def test_who_waits_for_a_refusal_is_told_after_the_flush_or_when_the_gateway_ends() -> None:
    scripts = FakeScripts([Decided([REFUSED], 0, 0, LINEAGE)], [Decided([REFUSED], 0, 0, LINEAGE)])
    scripts.gate.clear()
    bench = Bench(scripts)
    told: list[int] = []
    bench.committer.place(bid("x"))
    await eventually(lambda: len(scripts.flushed) == 1)
    for number in range(AT_ONCE_BUSY + 100):
        bench.committer.refusals.add(tells(told, number))
    assert len(told) == AT_ONCE_BUSY
    scripts.gate.set()
    await eventually(lambda: len(told) == AT_ONCE_BUSY + 100)
    assert told == list(range(AT_ONCE_BUSY + 100)), "in their order"

    scripts.gate.clear()
    bench.committer.place(bid("y"))
    for number in range(AT_ONCE_IDLE + 100):
        bench.committer.refusals.add(tells(told, number))
    assert len(bench.committer.refusals) > 0
    scripts.gate.set()
    await bench.stop()
    assert len(told) == AT_ONCE_BUSY + AT_ONCE_IDLE + 200
    bench.committer.refusals.add(tells(told, 0))
    assert len(told) == AT_ONCE_BUSY + AT_ONCE_IDLE + 201


async def test_a_gateway_that_ends_tells_everybody_without_waiting_for_a_flush() -> None:
    bench = Bench(FakeScripts())
    told: list[int] = []
    for number in range(3 * AT_ONCE_IDLE):
        bench.committer.refusals.add(tells(told, number))
    assert len(bench.committer.refusals) > 0
    await bench.committer.close()
    bench.committer.refusals.add(tells(told, 3 * AT_ONCE_IDLE))
    assert told == list(range(3 * AT_ONCE_IDLE + 1))
    await bench.stop()


async def test_as_many_refusals_are_told_as_go_with_the_bids_of_a_flush(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(FakeScripts([Decided([REFUSED] * 3, 0, 0, LINEAGE)], Unavailable("away")))
    flushed: list[int] = []
    monkeypatch.setattr(bench.committer.refusals, "flushed", flushed.append)
    for bids in (3, 2):
        placed = [bid(f"{bids}-{number}") for number in range(bids)]
        for one in placed:
            bench.committer.place(one)
        await asyncio.gather(*(one.verdict for one in placed), return_exceptions=True)
    await eventually(lambda: len(flushed) == 2)
    assert flushed == [3, 2]
    await bench.stop()


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


@pytest.mark.parametrize(
    "undecided", [[Unavailable("no Redis")], Unavailable("no Redis"), [ItemMissing()], [], [OutcomeUnknown()]]
)
async def test_only_a_flush_that_was_decided_shows_how_many_are(undecided: list[Decided | Exception]) -> None:
    bench = Bench(FakeScripts(undecided, [Decided([REFUSED] * 256, 0, 0, LINEAGE)]), queue_max=256)

    async def flush() -> None:
        bids = [bid(f"b-{number}") for number in range(256)]
        for one in bids:
            bench.committer.place(one)
        await eventually(lambda: all(one.verdict.done() for one in bids))

    await flush()
    assert math.isinf(bench.bound.rate)
    await flush()
    assert math.isfinite(bench.bound.rate)
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
