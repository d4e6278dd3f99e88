"""Faults between the steps of an account, each of which once let the sum pass the limit, or locked a bidder out."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import pytest_asyncio

from api_gateway.engine.accounts.scripts import AccountScripts, Raise
from shared import names
from shared.clients.cluster.pipeline import NodeAway
from shared.domain.errors import Unavailable
from shared.redis_layout.keys import credit_key, cursors_key, item_key
from shared.redis_layout.verdicts import credit_lacking
from tests.integration.gateway.rulings.spending_world import ITEMS, USD, WHY, House
from tests.stack import running_stack

pytestmark = pytest.mark.integration

ITEM, ELSEWHERE = next((a, b) for a in ITEMS for b in ITEMS if names.shard_of(a) != names.shard_of(b))
SHARD = names.shard_of(ITEM)


@pytest.fixture(scope="module")
def redis_of_this_file() -> Iterator[str]:
    with running_stack(services=()) as stack:
        yield stack.urls.redis_url


@pytest_asyncio.fixture
async def house(redis_of_this_file: str) -> AsyncIterator[House]:
    house = House(redis_of_this_file)
    await house.begin()
    yield house
    await house.bids.close()
    await house.redis.aclose()


async def bid(house: House, item: str, maximum: int) -> bytes:
    """Bid as a gateway does: with credit found where the shard has too little."""
    for _ in range(5):
        verdict = await house.place(item, "ann", None, maximum)
        lacking = credit_lacking(verdict)
        if lacking is None or not await house.accounts.find_credit(item, "ann", lacking[1], lacking[0]):
            break
    return verdict


class Broken:
    """A script whose calls are answered so."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer

    async def run_each(self, _redis: Any, calls: Any) -> list[Any]:
        return [self.answer] * len(calls)


@pytest.mark.parametrize("answer", [NodeAway("away"), [2], [3]], ids=["its node is away", "lost", "full"])
async def test_an_account_is_not_opened_while_an_item_cannot_be_counted(
    house: House, monkeypatch: pytest.MonkeyPatch, answer: Any
) -> None:
    assert (await bid(house, ITEM, 500)).startswith(b"A")
    await house.accounts_scripts.limit_spending("ann", USD, 500, **WHY)
    with monkeypatch.context() as patched:
        patched.setattr(AccountScripts, "_charge", Broken(answer))
        with pytest.raises(Unavailable):
            await house.accounts.open("ann", USD)
    assert (await bid(house, ELSEWHERE, 500)).startswith(b"R|LIMIT_EXCEEDED")
    assert await house.leads("ann") == 500


async def rebuild_without_the_limit(house: House) -> None:
    """Rebuild a shard as `recover` does while the archive does not have the limit yet."""
    await house.redis.delete(credit_key(SHARD))
    await house.redis.hdel(item_key(ITEM), "charged")
    await house.redis.hset(cursors_key(SHARD), mapping={"epoch": 2, "rulings": ""})


async def test_a_gateway_dies_after_it_told_a_rebuilt_shard_of_the_limit(house: House) -> None:
    """The account was open, and nobody but the shard knows that it is not counted."""
    scripts = house.accounts_scripts
    await scripts.limit_spending("ann", USD, 500, **WHY)
    await house.accounts.open("ann", USD)
    assert (await bid(house, ITEM, 500)).startswith(b"A")
    await rebuild_without_the_limit(house)
    account = await scripts.account("ann", USD)
    assert account is not None
    assert account.is_open
    assert set((await scripts.begin("ann", USD, account)).marks) == {SHARD}
    # Also before anybody comes by: the shard gives nothing back that may be in use.
    assert (await bid(house, ELSEWHERE, 500)).startswith(b"R|LIMIT_EXCEEDED")
    await house.accounts.look_after("ann", USD)
    assert (await bid(house, ELSEWHERE, 500)).startswith(b"R|LIMIT_EXCEEDED")
    assert await house.leads("ann") == 500
    [part] = await scripts.in_shards("ann", USD, [SHARD])
    assert (part.used, part.is_counted) == (500, True)


async def test_a_mark_of_a_shard_that_was_rebuilt_again_stays(house: House) -> None:
    """Who counted before the second loss does not say that the third life of the shard is counted."""
    scripts = house.accounts_scripts
    await scripts.limit_spending("ann", USD, 500, **WHY)
    account = await scripts.account("ann", USD)
    assert account is not None
    first, _ = await scripts.begin("ann", USD, account)
    assert set(first) == set(names.SHARDS)
    assert (await scripts.begin("ann", USD, account)).marks == first, "who comes later finds the same marks"
    await rebuild_without_the_limit(house)
    second, _ = await scripts.begin("ann", USD, account)
    assert second[SHARD] != first[SHARD]
    await scripts.counted("ann", USD, first)
    reports = await scripts.collect("ann", USD, account.generation, names.SHARDS)
    assert {shard for shard, *_ in reports} == set(names.SHARDS) - {SHARD}
    await scripts.counted("ann", USD, second)
    assert await scripts.begin("ann", USD, account) == ({}, None)


async def test_leases_of_a_former_counting_do_not_open_an_account(house: House) -> None:
    scripts = house.accounts_scripts
    await scripts.limit_spending("ann", USD, 500, **WHY)
    account = await scripts.account("ann", USD)
    assert account is not None
    await scripts.counted("ann", USD, (await scripts.begin("ann", USD, account)).marks)
    stale = await scripts.collect("ann", USD, account.generation, names.SHARDS)
    assert len(stale) == len(names.SHARDS)
    await house.accounts.open("ann", USD)
    assert (await bid(house, ITEM, 500)).startswith(b"A")
    await scripts.note("ann", USD, account.generation, "recount")
    assert not await scripts.take_back("ann", USD, account.generation, stale, opening=account.counting)
    assert (await bid(house, ELSEWHERE, 500)).startswith(b"R|LIMIT_EXCEEDED")
    assert await house.leads("ann") == 500


async def test_a_shard_that_forgot_raises_is_given_credit_again(house: House) -> None:
    """Its node failed over to a replica that lacked the last of them."""
    scripts = house.accounts_scripts
    await scripts.limit_spending("ann", USD, 5_000, **WHY)
    await house.accounts.open("ann", USD)
    before = await house.redis.hgetall(credit_key(SHARD))
    for _ in range(4):
        [part] = await scripts.in_shards("ann", USD, [SHARD])
        given = await scripts.lease("ann", USD, SHARD, part, 100)
        assert isinstance(given, Raise)
        assert await scripts.grant("ann", USD, SHARD, part, given)
    await house.redis.delete(credit_key(SHARD))
    await house.redis.hset(credit_key(SHARD), mapping=before)
    [part] = await scripts.in_shards("ann", USD, [SHARD])
    assert await scripts.lease("ann", USD, SHARD, part, 100) == "old"
    assert (await bid(house, ITEM, 100)).startswith(b"A")
    # Nothing of it stays lost: what the shard forgot is there to be given.
    assert (await bid(house, ELSEWHERE, 4_900)).startswith(b"A")
    assert (await bid(house, ITEM, 101)).startswith(b"R|LIMIT_EXCEEDED")


async def test_a_raise_that_is_on_its_way_does_not_come_to_a_shard_that_caught_up(house: House) -> None:
    scripts = house.accounts_scripts
    await scripts.limit_spending("ann", USD, 500, **WHY)
    await house.accounts.open("ann", USD)
    [part] = await scripts.in_shards("ann", USD, [SHARD])
    given = await scripts.lease("ann", USD, SHARD, part, 100)
    assert isinstance(given, Raise)
    assert part.lease is not None
    await scripts.catch_up("ann", USD, SHARD, part.lease.generation)
    assert not await scripts.grant("ann", USD, SHARD, part, given)
    assert (await bid(house, ELSEWHERE, 500)).startswith(b"A")


async def with_limit(house: House, limit: int | None) -> None:
    await house.accounts_scripts.limit_spending("ann", USD, limit, **WHY)
    await house.accounts.open("ann", USD)


async def test_a_shard_that_went_back_does_not_use_what_it_had_given_back(house: House) -> None:
    """Its node failed over, within the epoch, to a replica that lacks the last of it: credit alone, no bids."""
    await with_limit(house, 500)
    assert await house.accounts.find_credit(ITEM, "ann", USD, 500)
    before = await house.copy()
    assert (await bid(house, ELSEWHERE, 500)).startswith(b"A")
    await house.fail_over(before, [SHARD])
    assert (await bid(house, ITEM, 1)).startswith(b"R|LIMIT_EXCEEDED")
    assert await house.leads("ann") == 500
    # What is free again comes to the shard as ever.
    await house.place(ELSEWHERE, "bob", None, 600)
    assert (await bid(house, ITEM, 500)).startswith(b"A")


async def test_an_account_that_went_back_does_not_give_again_what_it_gave(house: House) -> None:
    home = names.shard_of("ann")
    assert home not in (SHARD, names.shard_of(ELSEWHERE))
    await with_limit(house, 500)
    before = await house.copy()
    asleep = await house.accounts_scripts.collect("ann", USD, "1|1", names.SHARDS)
    assert (await bid(house, ITEM, 500)).startswith(b"A")
    account = await house.accounts_scripts.account("ann", USD)
    await house.fail_over(before, [home])
    assert (await bid(house, ELSEWHERE, 1)).startswith(b"R|LIMIT_EXCEEDED")
    assert await house.leads("ann") == 500
    # It does not take earlier reports for the answer to its question either.
    assert account is not None
    await house.accounts_scripts.note("ann", USD, account.generation, "recount")
    assert not await house.accounts_scripts.take_back("ann", USD, account.generation, asleep, opening=account.counting)


@pytest.mark.parametrize("had_another_one", [False, True])
async def test_a_shard_that_went_back_behind_the_limit_is_counted_by_the_open_account(
    house: House, had_another_one: bool
) -> None:
    if had_another_one:
        await with_limit(house, 900)
        await with_limit(house, None)
    before = await house.copy()
    await with_limit(house, 500)
    await house.fail_over(before, [SHARD])
    # Nobody has told it yet: a limit that is lost is none.
    assert (await bid(house, ITEM, 400)).startswith(b"A")
    await house.accounts.look_after("ann", USD)
    assert (await bid(house, ELSEWHERE, 101)).startswith(b"R|LIMIT_EXCEEDED")
    assert (await bid(house, ELSEWHERE, 100)).startswith(b"A")


@pytest.mark.parametrize("asks_first", [True, False])
async def test_what_somebody_has_in_hand_from_before_a_failover_is_of_no_use(house: House, asks_first: bool) -> None:
    """Raises and reports whose numbers the copies have not given out yet, and give out again."""
    scripts = house.accounts_scripts
    await with_limit(house, 1_000)
    assert (await bid(house, ITEM, 300)).startswith(b"A")
    before = await house.copy()
    account = await scripts.account("ann", USD)
    assert account is not None
    asleep = []
    for _ in range(8):
        [part] = await scripts.in_shards("ann", USD, [SHARD])
        given = await scripts.lease("ann", USD, SHARD, part, 1)
        assert isinstance(given, Raise)
        asleep.append((part, given))
        assert await scripts.grant("ann", USD, SHARD, part, given)
    await house.place(ITEM, "bob", None, 400)
    late = await scripts.collect("ann", USD, account.generation, [SHARD])
    await house.fail_over(before, names.SHARDS)
    assert await house.leads("ann") == 300
    if asks_first:
        assert await house.accounts.find_credit(ITEM, "ann", USD, 1)
        assert await house.accounts.find_credit(ELSEWHERE, "ann", USD, 1)
    await scripts.take_back("ann", USD, account.generation, late)
    for part, given in asleep:
        assert not await scripts.grant("ann", USD, SHARD, part, given)
    assert (await bid(house, ELSEWHERE, 701)).startswith(b"R|LIMIT_EXCEEDED")
    assert (await bid(house, ELSEWHERE, 700)).startswith(b"A")


@pytest.mark.parametrize("limit_before", [500, None])
@pytest.mark.parametrize("is_rebuilt", [False, True])
async def test_what_is_released_below_a_lower_limit_is_not_free(
    house: House, limit_before: int | None, is_rebuilt: bool
) -> None:
    """What is led with above the limit stands. Once it does not, its shard has no more than the limit, either."""
    await with_limit(house, 600)
    await with_limit(house, limit_before)
    assert (await bid(house, ITEM, 400)).startswith(b"A")
    await with_limit(house, 50)
    if is_rebuilt:
        await house.rebuild(SHARD)
    await house.voids.strike(ITEM, f"b-{house.numbers}", reason="a test", by="olga")
    assert await house.leads("ann") == 0
    for item in (ITEM, ELSEWHERE):
        assert (await bid(house, item, 51)).startswith(b"R|LIMIT_EXCEEDED")
    assert (await bid(house, ITEM, 50)).startswith(b"A")


async def lose_the_last_limit(house: House, before: int | None, after: int | None) -> None:
    """The node of the account's home fails over to a replica that lacks a limit of which all other shards were told."""
    if before is not None:
        await with_limit(house, before)
    copy = await house.copy()
    await with_limit(house, after)
    await house.fail_over(copy, [names.shard_of("ann")])


@pytest.mark.parametrize(("before", "after"), [(None, 500), (900, 500)])
async def test_who_had_a_limit_that_their_home_lost_can_bid(house: House, before: int | None, after: int) -> None:
    """Until then the shards believe no account, and the account no shard: each bid would be 503 for ever."""
    await lose_the_last_limit(house, before, after)
    assert (await bid(house, ITEM, 600)).startswith(b"A")
    assert (await bid(house, ELSEWHERE, 300)).startswith(b"A")
    assert (await bid(house, ITEM, 700)).startswith(b"M" if before is None else b"R|LIMIT_EXCEEDED")
    # The next limit is one like any.
    await with_limit(house, 950)
    assert (await bid(house, ITEM, 701)).startswith(b"R|LIMIT_EXCEEDED")
    assert await house.leads("ann") == (1_000 if before is None else 900)


@pytest.mark.parametrize("others", [0, 3], ids=["gets its number", "gets a lower number"])
async def test_a_limit_holds_though_the_home_lost_what_was_ruled_before_it(house: House, others: int) -> None:
    """What was lost took a limit away; the next one gets the number of that ruling, or a lower one."""
    await with_limit(house, 900)
    copy = await house.copy()
    for number in range(others):
        await with_limit(house, 800 + number)
    await with_limit(house, None)
    await house.fail_over(copy, [names.shard_of("ann")])
    await with_limit(house, 300)
    assert (await bid(house, ITEM, 200)).startswith(b"A")
    assert (await bid(house, ELSEWHERE, 101)).startswith(b"R|LIMIT_EXCEEDED")
    assert (await bid(house, ELSEWHERE, 100)).startswith(b"A")
