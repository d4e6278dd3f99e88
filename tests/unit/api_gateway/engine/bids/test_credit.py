"""What becomes of bids whose shard lacks credit of a spending limit, without a network."""

from __future__ import annotations

import asyncio

import pytest

from api_gateway.engine.bids import committer as module
from api_gateway.engine.bids.committer import FindCredit
from api_gateway.engine.bids.scripts import Decided
from shared.domain.errors import Overloaded, Unavailable
from shared.redis_layout.verdicts import credit_lacking
from tests.unit.api_gateway.engine.bids.bench import ACCEPTED, LINEAGE, Bench, FakeScripts, bid

LACKING = b"R|LIMIT_EXCEEDED|100|0|101|1|40|USD"
BY_ITEM = b"R|LIMIT_EXCEEDED|100|0|101|1"


def said(*lines: bytes) -> list[Decided | Exception]:
    return [Decided(lines, 1, 1, LINEAGE)]


def answers(*lines: bytes) -> FakeScripts:
    return FakeScripts(*(said(line) for line in lines))


class Account:
    """Says of each question whether there is credit, and notes how many were asked at one time."""

    def __init__(self, *found: bool) -> None:
        self._found = list(found)
        self.asked: list[tuple[str, str, str, int]] = []
        self.at_once = self.most_at_once = 0

    async def find(self, item_id: str, user_id: str, currency: str, need: int) -> bool:
        self.asked.append((item_id, user_id, currency, need))
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(0)
        self.at_once -= 1
        return self._found.pop(0)


def test_what_a_line_says_is_lacking() -> None:
    assert credit_lacking(LACKING) == (40, "USD")
    assert credit_lacking(BY_ITEM) is None


async def test_a_bid_is_decided_again_once_there_is_credit() -> None:
    account = Account(True)
    bench = Bench(answers(LACKING, ACCEPTED), find_credit=account.find)
    one = bid("x")
    bench.committer.place(one)
    assert await one.verdict == ACCEPTED
    assert account.asked == [("a", "ada", "USD", 40)]
    await bench.stop()


async def test_a_bid_that_was_taken_is_not_shed_when_there_is_credit_for_it() -> None:
    """However many came meanwhile. It was taken before them."""
    scripts = FakeScripts(said(LACKING), said(ACCEPTED, ACCEPTED))
    bench: Bench

    async def find(*_: object) -> bool:
        bench.committer.place(bid("late"))
        assert bench.committer.sheds()
        return True

    bench = Bench(scripts, find_credit=find, queue_max=1)
    one = bid("x")
    bench.committer.place(one)
    assert await asyncio.wait_for(one.verdict, 5) == ACCEPTED
    assert bench.committer.shed_total == 1, "the one that was asked for in between"
    await bench.stop()


async def test_when_the_gateway_ends_a_bid_that_seeks_credit_is_told_so() -> None:
    """Nobody may flush any more."""
    bench: Bench

    async def find(*_: object) -> bool:
        bench.committer._closing = True
        return True

    bench = Bench(answers(LACKING), find_credit=find)
    one = bid("x")
    bench.committer.place(one)
    with pytest.raises(Overloaded):
        await asyncio.wait_for(one.verdict, 5)
    assert bench.committer.shed_total == 1
    await bench.stop()


async def test_the_refusal_stands_where_there_is_none() -> None:
    account = Account(False)
    bench = Bench(answers(LACKING), find_credit=account.find)
    one = bid("x")
    bench.committer.place(one)
    assert await one.verdict == LACKING
    await bench.stop()


async def test_a_limit_on_the_item_seeks_none() -> None:
    account = Account()
    bench = Bench(answers(BY_ITEM), find_credit=account.find)
    one = bid("x")
    bench.committer.place(one)
    assert await one.verdict == BY_ITEM
    assert account.asked == []
    await bench.stop()


async def test_it_is_sought_a_few_times_at_most() -> None:
    account = Account(*[True] * 9)
    bench = Bench(answers(*[LACKING] * 9), find_credit=account.find)
    one = bid("x")
    bench.committer.place(one)
    assert await one.verdict == LACKING
    assert len(account.asked) == 4
    await bench.stop()


async def test_bids_of_one_bidder_take_turns() -> None:
    account = Account(True, True, True)
    bench = Bench(
        FakeScripts(said(*[LACKING] * 3), *(said(ACCEPTED) for _ in range(3))),
        find_credit=account.find,
    )
    bids = [bid(name) for name in "xyz"]
    for one in bids:
        bench.committer.place(one)
    assert await asyncio.gather(*(one.verdict for one in bids)) == [ACCEPTED] * 3
    assert account.most_at_once == 1
    await bench.stop()


async def test_who_was_behind_others_asks_first_whether_it_still_lacks_credit() -> None:
    account = Account(True, True, False)
    less = b"R|LIMIT_EXCEEDED|100|0|101|1|7|USD"
    bench = Bench(
        FakeScripts(said(*[LACKING] * 4), *(said(line) for line in (ACCEPTED, ACCEPTED, less, ACCEPTED, less))),
        find_credit=account.find,
    )
    bids = [bid(name) for name in "wxyz"]
    for one in bids:
        bench.committer.place(one)
    assert await asyncio.gather(*(one.verdict for one in bids)) == [ACCEPTED, ACCEPTED, ACCEPTED, less]
    assert [need for *_, need in account.asked] == [40, 7, 7]
    await bench.stop()


async def test_who_waits_is_bounded_and_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SEEKING_MAX", 1)
    bench = Bench(
        FakeScripts(said(LACKING, LACKING), said(ACCEPTED)),
        find_credit=Account(True).find,
    )
    bids = [bid(name) for name in "xy"]
    for one in bids:
        bench.committer.place(one)
    assert await bids[0].verdict == ACCEPTED
    with pytest.raises(Overloaded):
        await bids[1].verdict
    await bench.stop()


async def test_one_bidder_does_not_take_the_room_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_SEEKING_OF_ONE_MAX", 2)
    bench = Bench(
        # Those of two bidders are decided again together.
        FakeScripts(said(*[LACKING] * 4), said(ACCEPTED, ACCEPTED), said(ACCEPTED)),
        find_credit=Account(True, True, True).find,
    )
    bids = [bid(name) for name in "wxy"] + [bid("z", user="zoe")]
    for one in bids:
        bench.committer.place(one)
    assert [await bids[at].verdict for at in (0, 1, 3)] == [ACCEPTED] * 3
    with pytest.raises(Overloaded, match="of yours"):
        await bids[2].verdict
    await bench.stop()


@pytest.mark.parametrize("error", [Unavailable("away"), RuntimeError("a bug")])
async def test_no_bid_is_left_without_an_answer(error: Exception) -> None:
    async def fail(*_: object) -> bool:
        raise error

    find_credit: FindCredit = fail
    bench = Bench(answers(LACKING), find_credit=find_credit)
    one = bid("x")
    bench.committer.place(one)
    with pytest.raises(Exception, match=r"away|not known"):
        await asyncio.wait_for(one.verdict, 5)
    await bench.stop()
