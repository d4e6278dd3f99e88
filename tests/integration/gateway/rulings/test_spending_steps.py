"""The steps between an account and a shard, in the orders in which something could get lost or be given twice."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_asyncio

from api_gateway.engine.accounts.scripts import InShard, Raise, Report
from shared import names
from shared.redis_layout.keys import account_key
from shared.redis_layout.verdicts import ACCEPTED, credit_lacking
from tests.integration.gateway.rulings.spending_world import ITEMS, SHARDS, USD, WHY, House
from tests.stack import running_stack

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def redis_of_this_file() -> Iterator[str]:
    with running_stack(services=()) as stack:
        yield stack.urls.redis_url


class Hand:
    """One account in one shard, step by step."""

    def __init__(self, house: House) -> None:
        self.house, self.scripts = house, house.accounts_scripts
        self.shard = SHARDS[0]

    async def part(self) -> InShard:
        [part] = await self.scripts.in_shards("ann", USD, [self.shard])
        return part

    async def ask(self, need: int, part: InShard | None = None) -> Any:
        return await self.scripts.lease("ann", USD, self.shard, part or await self.part(), need)

    async def bring(self, part: InShard, given: Raise) -> bool:
        return await self.scripts.grant("ann", USD, self.shard, part, given)

    async def collect(self) -> list[Report]:
        account = await self.scripts.account("ann", USD)
        assert account is not None
        return await self.scripts.collect("ann", USD, account.generation, [self.shard])

    async def tell(self, reports: list[Report]) -> None:
        account = await self.scripts.account("ann", USD)
        assert account is not None
        await self.scripts.take_back("ann", USD, account.generation, reports)

    async def books(self) -> tuple[int, int]:
        """What the shard has, and what the account believes that it has."""
        part = await self.part()
        assert part.lease is not None
        assert part.lease.granted is not None
        record = await self.house.redis.hget(account_key("ann", USD), self.shard)
        return part.lease.granted, int(record.split(b"|")[0])


@pytest_asyncio.fixture
async def hand(redis_of_this_file: str) -> AsyncIterator[Hand]:
    house = House(redis_of_this_file)
    await house.begin()
    await house.accounts_scripts.limit_spending("ann", USD, 800, **WHY)
    await house.accounts.open("ann", USD)
    yield Hand(house)
    await house.bids.close()
    await house.redis.aclose()


async def test_a_raise_counts_before_it_is_there_and_is_taken_once(hand: Hand) -> None:
    part = await hand.part()
    given = await hand.ask(80, part)
    # The first number was given out when the account was opened: the shard told what it has.
    assert given == Raise(2, 80 + (800 - 80) // 8)
    assert await hand.books() == (0, 170)
    assert [await hand.bring(part, given) for _ in range(3)] == [True, False, False]
    assert await hand.books() == (170, 170)


async def test_a_raise_that_nobody_brought_is_given_again_to_the_next_one(hand: Hand) -> None:
    lost = await hand.ask(80)
    again = await hand.ask(5)
    assert again == lost, "the same, whatever is needed now"
    part = await hand.part()
    assert await hand.bring(part, again)
    assert not await hand.bring(part, lost), "whoever had it wakes up"
    assert await hand.books() == (170, 170)


async def test_a_raise_is_over_once_the_shard_has_given_back(hand: Hand) -> None:
    part = await hand.part()
    asleep = await hand.ask(80, part)
    reports = await hand.collect()
    await hand.tell(reports)
    assert await hand.books() == (0, 0)
    assert not await hand.bring(part, asleep)
    assert await hand.books() == (0, 0)
    now = await hand.part()
    assert await hand.bring(now, await hand.ask(800, now))
    assert await hand.books() == (800, 800)


async def test_a_report_that_comes_late_takes_nothing_away(hand: Hand) -> None:
    late = await hand.collect()
    part = await hand.part()
    assert await hand.bring(part, await hand.ask(80, part))
    await hand.tell(late)
    assert await hand.books() == (170, 170)


async def test_what_a_shard_gave_back_and_nobody_told_is_found_with_the_next_question(hand: Hand) -> None:
    part = await hand.part()
    assert await hand.bring(part, await hand.ask(400, part))
    await hand.collect()
    shard, account = await hand.books()
    assert shard < account
    part = await hand.part()
    assert await hand.bring(part, await hand.ask(800, part))
    assert await hand.books() == (800, 800)


async def test_of_two_shards_that_need_the_last_credit_one_gets_it(hand: Hand) -> None:
    other = Hand(hand.house)
    other.shard = SHARDS[1]
    answers = [await hand.ask(500), await other.ask(500)]
    assert [isinstance(answer, Raise) for answer in answers] == [True, False]
    assert answers[1] == "lacking"


async def test_a_raise_from_before_a_shard_was_rebuilt_is_not_taken(hand: Hand) -> None:
    part = await hand.part()
    asleep = await hand.ask(80, part)
    await hand.house.rebuild(hand.shard)
    assert not await hand.bring(part, asleep)
    assert await hand.ask(80, part) != "lacking"
    now = await hand.part()
    assert await hand.bring(now, await hand.ask(80, now))
    shard, account = await hand.books()
    assert shard == account


async def test_a_limit_of_another_generation_gives_nothing(hand: Hand) -> None:
    part = await hand.part()
    asleep = await hand.ask(80, part)
    await hand.scripts.limit_spending("ann", USD, 100, **WHY)
    assert await hand.ask(10, part) == "other"
    await hand.house.accounts.open("ann", USD)
    assert not await hand.bring(part, asleep)
    assert await hand.ask(10, part) == "other", "what the shard told is of before"
    assert await hand.ask(101) == "lacking"
    assert isinstance(await hand.ask(100), Raise)


async def test_an_account_that_is_being_counted_gives_nothing(hand: Hand) -> None:
    await hand.scripts.limit_spending("ann", USD, 100, **WHY)
    account = await hand.scripts.account("ann", USD)
    assert account is not None
    assert not account.is_open
    assert await hand.scripts.begin("ann", USD, account) == {}, "they counted before"
    assert await hand.ask(10) == "counting"


async def test_a_shard_never_gives_itself_what_a_void_has_brought_back(hand: Hand) -> None:
    """A void may bring a lead back whose credit is used elsewhere. The shard must not take it for a lease: 1. nobody
    told the account of it; 2. the bidder loses the lead, and gets the whole limit elsewhere; 3. and bids here again."""
    house = hand.house
    here, elsewhere = next((a, b) for a in ITEMS for b in ITEMS if names.shard_of(a) != names.shard_of(b))

    async def bid(item: str, user: str, most: int) -> tuple[bool, str]:
        """As a gateway does; whether it was accepted, and the bid's id."""
        line = await house.place(item, user, None, most)
        lacking = credit_lacking(line) if line.startswith(b"R|LIMIT") else None
        if lacking is not None and await house.accounts.find_credit(item, user, USD, lacking[0]):
            line = await house.place(item, user, None, most)
        return line.startswith(ACCEPTED), f"b-{house.numbers}"

    async def void(item: str, bid_id: str) -> None:
        await house.items.void(item, bid_id, count=(), reason="a test", by="olga")

    async def collected() -> list[Report]:
        account = await house.accounts_scripts.account("ann", USD)
        assert account is not None
        return await house.accounts_scripts.collect("ann", USD, account.generation, names.SHARDS)

    leads, anns = await bid(here, "ann", 300)
    _, bobs = await bid(here, "bob", 500)
    assert leads
    account = await house.accounts_scripts.account("ann", USD)
    assert account is not None
    await house.accounts_scripts.take_back("ann", USD, account.generation, await collected())
    await void(here, bobs)
    assert await house.leads("ann") == 300
    await collected()
    await void(here, anns)
    assert await house.leads("ann") == 0
    assert (await bid(elsewhere, "ann", 800))[0]
    assert not (await bid(here, "ann", 300))[0], "the limit is used elsewhere"
    assert await house.leads("ann") == 800


async def test_what_a_void_has_brought_back_is_credit_of_nobody_once_the_account_knows(hand: Hand) -> None:
    """What is used beyond the lease counts for the account as soon as it hears of it."""
    house = hand.house
    here = next(item for item in ITEMS if names.shard_of(item) == hand.shard)
    assert await house.accounts.find_credit(here, "ann", USD, 300)
    await house.place(here, "ann", None, 300)
    await house.place(here, "bob", None, 500)
    await hand.tell(await hand.collect())
    await house.items.void(here, f"b-{house.numbers}", count=(), reason="a test", by="olga")
    await house.accounts.hear("ann", USD)
    assert await hand.books() == (0, 300)
    assert await hand.ask(900) == "lacking"
    assert await hand.books() == (0, 300), "also when it was asked in vain"
    part = await hand.part()
    given = await hand.ask(400)
    assert await hand.bring(part, given)
    granted, known = await hand.books()
    assert 400 <= granted <= known <= 800
