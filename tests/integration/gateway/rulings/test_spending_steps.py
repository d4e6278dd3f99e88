"""The steps between an account and a shard, in the orders in which something could get lost or be given twice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_asyncio

from api_gateway.engine.accounts.scripts import InShard, Raise, Report
from shared import names
from shared.domain.errors import LeadLacksCredit, Unavailable
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
    assert set((await hand.scripts.begin("ann", USD, account)).marks) == set(names.SHARDS)
    assert await hand.ask(10) == "counting"


class Desk:
    """What a gateway does for operators and bidders, by the scripts."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.here, self.elsewhere = next(
            (a, b) for a in ITEMS for b in ITEMS if names.shard_of(a) != names.shard_of(b) and a != ITEMS[0] != b
        )

    async def bid(self, item: str, user: str, most: int) -> str | None:
        """The id of the bid; None where it is beyond the limit."""
        line = await self.house.place(item, user, None, most)
        lacking = credit_lacking(line) if line.startswith(b"R|LIMIT") else None
        if lacking is not None and await self.house.gateways[1].find_credit(item, user, USD, lacking[0]):
            line = await self.house.place(item, user, None, most)
        return f"b-{self.house.numbers}" if line.startswith(ACCEPTED) else None

    async def script(self, bid_id: str) -> None:
        """One step of a void."""
        await self.house.items.void(self.here, bid_id, count=(), reason="a test", by="olga")

    async def void(self, bid_id: str) -> None:
        await self.house.voids.strike(self.here, bid_id, reason="a test", by="olga")

    async def collect_all(self) -> None:
        scripts = self.house.accounts_scripts
        account = await scripts.account("ann", USD)
        assert account is not None
        reports = await scripts.collect("ann", USD, account.generation, names.SHARDS)
        assert await scripts.take_back("ann", USD, account.generation, reports)


async def test_a_void_has_the_credit_of_what_it_brings_back_before_it_strikes(hand: Hand) -> None:
    """What is free elsewhere is given back first, whoever dies on the way; until then nothing is struck."""
    house, desk = hand.house, Desk(hand.house)
    await desk.bid(desk.here, "ann", 300)
    bobs = await desk.bid(desk.here, "bob", 500)
    assert bobs is not None
    await desk.collect_all()
    # The whole limit lies elsewhere, and is free there.
    free = await desk.bid(desk.elsewhere, "ann", 800)
    await house.items.void(desk.elsewhere, str(free), count=(), reason="a test", by="olga")
    for _ in range(2):
        with pytest.raises(LeadLacksCredit) as lacking:
            await desk.script(bobs)
        assert (lacking.value.user_id, lacking.value.currency, lacking.value.missing) == ("ann", USD, 300)
        assert await house.leads("ann") == 0
    assert await house.accounts.find_credit(desk.here, "ann", USD, lacking.value.missing)
    # Its gateway dies here. Neither bids elsewhere nor a repetition get more than there is.
    assert await desk.bid(desk.elsewhere, "ann", 800) is not None, "it was not used"
    with pytest.raises(LeadLacksCredit):
        await desk.void(bobs)
    assert await house.leads("ann") == 800


async def test_a_void_beside_bids_elsewhere_that_use_what_is_left(hand: Hand) -> None:
    house, desk = hand.house, Desk(hand.house)
    await desk.bid(desk.here, "ann", 300)
    bobs = await desk.bid(desk.here, "bob", 500)
    assert bobs is not None
    assert await desk.bid(desk.elsewhere, "ann", 501) is not None
    with pytest.raises(LeadLacksCredit):
        await desk.void(bobs)
    assert await house.leads("ann") == 501, "nothing was struck"
    # The lead elsewhere is lost: the same void is possible now, and takes the credit that came back.
    await house.place(desk.elsewhere, "bob", None, 700)
    await desk.void(bobs)
    assert await house.leads("ann") == 300
    assert await desk.bid(desk.elsewhere, "ann", 701) is None
    assert await house.leads("ann") == 300


async def test_a_bid_that_was_beaten_at_once_needs_its_credit_when_a_void_lets_it_lead(hand: Hand) -> None:
    house, desk = hand.house, Desk(hand.house)
    bobs = await desk.bid(desk.here, "bob", 5_000)
    anns = await desk.bid(desk.here, "ann", 400)
    assert bobs is not None
    assert anns is not None
    assert await desk.bid(desk.elsewhere, "ann", 700) is not None, "who does not lead with it uses no credit"
    with pytest.raises(LeadLacksCredit):
        await desk.void(bobs)
    await desk.void(anns)
    await desk.void(bobs)
    assert await house.leads("ann") == 700


async def test_a_void_that_changes_nobodys_lead_needs_no_credit(hand: Hand) -> None:
    """Also where what was led with before the limit is above it."""
    house, desk = hand.house, Desk(hand.house)
    await desk.bid(desk.here, "ann", 300)
    await desk.bid(desk.here, "ann", 400)
    raised = f"b-{house.numbers}"
    beaten = await desk.bid(desk.here, "bob", 50)
    assert beaten is not None
    await house.accounts_scripts.limit_spending("ann", USD, 10, **WHY)
    await house.accounts.open("ann", USD)
    await desk.void(beaten)
    assert await house.leads("ann") == 400
    await desk.void(raised)
    assert await house.leads("ann") == 300


async def test_voids_and_bids_elsewhere_at_one_moment(hand: Hand) -> None:
    """By two gateways, for more than there is: whoever comes first has the credit."""
    house, desk = hand.house, Desk(hand.house)
    others = [item for item in ITEMS if item not in (desk.here, ITEMS[0])]
    for _ in range(6):
        await house.begin()
        await house.accounts_scripts.limit_spending("ann", USD, 800, **WHY)
        await house.accounts.open("ann", USD)
        await desk.bid(desk.here, "ann", 500)
        bobs = await desk.bid(desk.here, "bob", 900)
        assert bobs is not None
        await desk.collect_all()
        voided, *bids = await asyncio.gather(
            desk.void(bobs), *(desk.bid(item, "ann", 200) for item in others), return_exceptions=True
        )
        assert voided is None or isinstance(voided, LeadLacksCredit | Unavailable)
        taken = [one for one in bids if isinstance(one, str)]
        assert await house.leads("ann") == (500 if voided is None else 0) + 200 * len(taken) <= 800
