"""A void that needs its bidder's credit comes to an end, however many gateways refuse bids of that bidder meanwhile.

What must happen in between is done in the calls of the void's own script, so the order is the same in each run.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any

import pytest
import pytest_asyncio
from typing_extensions import override

from api_gateway.engine.accounts.accounts import Accounts
from api_gateway.engine.accounts.scripts import AccountScripts
from api_gateway.engine.accounts.turns import VoidTurns
from api_gateway.engine.bids.covered_voids import CoveredVoids
from api_gateway.engine.bids.voids import Voids
from api_gateway.engine.item_scripts import ItemScripts, ScriptLimits
from shared import names
from shared.domain.errors import Unavailable
from shared.redis_layout.keys import turn_key
from shared.redis_layout.verdicts import ACCEPTED, credit_lacking
from tests.integration.gateway.rulings.spending_world import ITEMS, USD, WHY, House
from tests.stack import running_stack

pytestmark = pytest.mark.integration

HERE, ELSEWHERE = next((a, b) for a in ITEMS[1:] for b in ITEMS[1:] if names.shard_of(a) != names.shard_of(b))
LIMIT, LEAD = 800, 300
GATEWAYS = 5


@pytest.fixture(scope="module")
def redis_of_this_file() -> Iterator[str]:
    with running_stack(services=()) as stack:
        yield stack.urls.redis_url


@pytest_asyncio.fixture
async def house(redis_of_this_file: str) -> AsyncIterator[House]:
    house = House(redis_of_this_file)
    await house.begin()
    await house.accounts_scripts.limit_spending("ann", USD, LIMIT, **WHY)
    await house.accounts.open("ann", USD)
    yield house
    await house.bids.close()
    await house.redis.aclose()


class Between(ItemScripts):
    """The scripts of the operator's gateway; others are a step faster, each time."""

    def __init__(self, house: House, others: Callable[[], Awaitable[object]]) -> None:
        super().__init__(house.redis, ScriptLimits())
        self.others = others
        self.calls = 0

    @override
    async def void(self, *args: Any, **named: Any) -> int | None:
        self.calls += 1
        if self.calls > 1:
            await self.others()
        return await super().void(*args, **named)


def operator(house: House, scripts: ItemScripts, turns: VoidTurns | None = None) -> CoveredVoids:
    nobody: Any = None  # the log in Redis reaches back to the first bid
    voids = Voids(house.redis, scripts, nobody)
    return CoveredVoids(voids, house.accounts.find_credit_at_once, turns or VoidTurns(house.redis))


async def outbid(house: House) -> str:
    """Ann was outbid by Bob, who is to be struck. Returns his bid's id; the credit of Ann lies in no shard."""
    assert (await house.place(HERE, "ann", None, LEAD)).startswith(b"R|LIMIT")
    assert await house.accounts.find_credit(HERE, "ann", USD, LEAD)
    assert (await house.place(HERE, "ann", None, LEAD)).startswith(ACCEPTED)
    assert (await house.place(HERE, "bob", None, 500)).startswith(ACCEPTED)
    bobs = f"b-{house.numbers}"
    scripts = house.accounts_scripts
    account = await scripts.account("ann", USD)
    assert account is not None
    reports = await scripts.collect("ann", USD, account.generation, names.SHARDS)
    assert await scripts.take_back("ann", USD, account.generation, reports)
    return bobs


class Gateway:
    """Another gateway, at which Ann bids more than her limit allows."""

    def __init__(self, house: House, told: Counter[str], scripts: AccountScripts | None = None) -> None:
        self.house, self.told = house, told
        self.accounts = Accounts(scripts or AccountScripts(house.redis, ScriptLimits()))

    async def refused_bid(self) -> None:
        line = await self.house.place(ELSEWHERE, "ann", None, LIMIT + 1)
        lacking = credit_lacking(line)
        assert lacking is not None
        try:
            assert not await self.accounts.find_credit(ELSEWHERE, "ann", USD, lacking[0])
        except Unavailable:
            self.told["503"] += 1
        else:
            self.told["LIMIT_EXCEEDED"] += 1


async def test_refused_bids_at_other_gateways_do_not_keep_a_void_from_its_credit(house: House) -> None:
    """Each of them has all shards give back what they do not use, so what the void has just got, too."""
    bobs = await outbid(house)
    told: Counter[str] = Counter()
    others = [Gateway(house, told) for _ in range(GATEWAYS - 1)]

    async def all_of_them() -> None:
        for each in others:
            await each.refused_bid()

    scripts = Between(house, all_of_them)
    await operator(house, scripts).strike(HERE, bobs, **WHY)
    assert await house.leads("ann") == LEAD
    assert scripts.calls == 3, "the credit of the first try was taken, that of the second one was not"
    assert told == {"LIMIT_EXCEEDED": GATEWAYS - 1, "503": GATEWAYS - 1}
    await others[0].refused_bid()
    assert told["LIMIT_EXCEEDED"] == GATEWAYS, "the void is over, and nobody waits for it any more"


class Slow(AccountScripts):
    """Those of a gateway that does nothing with what it has read before it may."""

    def __init__(self, house: House) -> None:
        super().__init__(house.redis, ScriptLimits())
        self.has_read, self.may_go_on = asyncio.Event(), asyncio.Event()

    @override
    async def lease(self, *args: Any) -> Any:
        self.has_read.set()
        await self.may_go_on.wait()
        return await super().lease(*args)


async def test_who_had_looked_before_the_void_took_its_turn_is_in_its_way_once(house: House) -> None:
    bobs = await outbid(house)
    told: Counter[str] = Counter()
    waiting: list[tuple[Slow, asyncio.Task[None]]] = []
    for _ in range(GATEWAYS - 1):
        its = Slow(house)
        waiting.append((its, asyncio.create_task(Gateway(house, told, its).refused_bid())))
        async with asyncio.timeout(30):
            await its.has_read.wait()

    async def one_of_them() -> None:
        if waiting:
            its, bid = waiting.pop()
            its.may_go_on.set()
            await bid
        await Gateway(house, told).refused_bid()

    scripts = Between(house, one_of_them)
    await operator(house, scripts).strike(HERE, bobs, **WHY)
    assert await house.leads("ann") == LEAD
    assert scripts.calls <= GATEWAYS + 2


async def test_two_voids_that_need_the_same_credit_take_turns(house: House) -> None:
    """The second one waits for the first, be it that this died: its turn ends by itself."""
    bobs = await outbid(house)
    taken: list[bool] = []

    async def another_void() -> None:
        # One step faster, once: from then on it is this one that has the turn, or its gateway dies.
        if not taken:
            taken.append(await house.gateways[1].find_credit_at_once(ELSEWHERE, "ann", USD, LIMIT))

    async with VoidTurns(house.redis, turn_s=60).turn_of("ann", USD):
        assert 0 < await house.redis.pttl(turn_key("ann", USD)) <= 60_000
        impatient = operator(house, Between(house, another_void), VoidTurns(house.redis, wait_s=0))
        with pytest.raises(Unavailable, match="another bid"):
            await impatient.strike(HERE, bobs, **WHY)
        assert (taken, await house.leads("ann")) == ([True], 0), "nothing was struck"
    assert await house.redis.exists(turn_key("ann", USD)) == 0, "who is done leaves it to the next one"
    await house.redis.set(turn_key("ann", USD), "of a gateway that died", px=500)
    taken.clear()
    await operator(house, Between(house, another_void)).strike(HERE, bobs, **WHY)
    assert (taken, await house.leads("ann")) == ([True], LEAD)


async def test_who_is_late_does_not_end_the_turn_of_the_next_one(house: House) -> None:
    async with VoidTurns(house.redis, turn_s=0).turn_of("ann", USD):
        # It was over at once, or has to be taken for it.
        await house.redis.set(turn_key("ann", USD), "of another", px=60_000)
    assert await house.redis.get(turn_key("ann", USD)) == b"of another"
