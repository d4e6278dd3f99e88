"""How rulings for all items come to all shards: by whoever made them, or by whoever looks after the rest."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from redis.asyncio import Redis

from api_gateway.engine.accounts import scripts as account_scripts_module
from api_gateway.engine.accounts.accounts import Accounts
from api_gateway.engine.accounts.scripts import AccountScripts
from api_gateway.engine.item_scripts import ScriptLimits
from api_gateway.engine.rulings import scripts as scripts_module
from api_gateway.engine.rulings.scripts import Made, RulingScripts
from api_gateway.engine.rulings.spreader import Spreader
from infrastructure.local.services import API_GATEWAY, ARCHIVAL_WORKER
from infrastructure.local.stack import Stack
from shared import names
from shared.domain.errors import OutboxFull, ShardLost, TooManyRulings
from shared.redis_layout.keys import cursors_key, outbox_key, rulings_key, spreading_key
from shared.redis_layout.rulings import HouseRuling, home_of
from tests.integration.loss.recover_world import house_of
from tests.stack import StackFactory, running_stack
from tests.waiting import eventually

pytestmark = pytest.mark.integration

ANN = "ann"
HOME = home_of(ANN)
OTHERS = [shard for shard in names.SHARDS if shard != HOME]
WHY = {"reason": "a test", "by": "olga"}


@pytest.fixture(scope="module")
def servers_of_this_file() -> Iterator[Stack]:
    with running_stack(services=()) as stack:
        yield stack


@pytest_asyncio.fixture
async def redis(servers_of_this_file: Stack) -> AsyncIterator[Any]:
    """Empty shards, all of them open."""
    async with Redis.from_url(servers_of_this_file.urls.redis_url, protocol=2) as client:
        await client.flushall()
        for shard in names.SHARDS:
            await open_shard(client, shard)
        yield client


async def open_shard(redis: Any, shard: str, *, epoch: int = 1) -> None:
    await redis.hset(cursors_key(shard), mapping={"epoch": epoch, "next": 0, "published": 0, "archived": 0})


async def archive_all(redis: Any) -> None:
    for shard in names.SHARDS:
        last = await redis.hget(cursors_key(shard), "next")
        if last is not None:
            await redis.hset(cursors_key(shard), "archived", last)


async def values(redis: Any, field: str = ANN) -> dict[str, str | None]:
    found = {shard: await redis.hget(rulings_key(shard), field) for shard in names.SHARDS}
    return {shard: None if value is None else value.decode() for shard, value in found.items()}


async def pending(redis: Any, shard: str = HOME) -> list[bytes]:
    return list(await redis.zrange(spreading_key(shard), 0, -1))


async def let_all_be_due(redis: Any) -> None:
    for shard in names.SHARDS:
        for member in await redis.zrange(spreading_key(shard), 0, -1):
            await redis.zadd(spreading_key(shard), {member: 1})


def parts(redis: Any, **bounds: int) -> tuple[RulingScripts, Spreader]:
    scripts = RulingScripts(redis, ScriptLimits(), **bounds)
    accounts = Accounts(AccountScripts(redis, ScriptLimits()))
    return scripts, Spreader(scripts, owned_shards=lambda: names.SHARDS, look_after=accounts.look_after)


async def test_it_holds_in_its_home_at_once_and_everywhere_when_it_is_spread(redis: Any) -> None:
    scripts, spreader = parts(redis)
    made = await scripts.rule_on_all(ANN, None, "block", **WHY)
    assert made == Made(ANN, "B|1|1", 1)
    assert {shard for shard, value in (await values(redis)).items() if value} == {HOME}
    assert await spreader.spread(ANN, made)
    assert set((await values(redis)).values()) == {"B|1|1"}
    marks = {await redis.hget(cursors_key(shard), "rulings") for shard in names.SHARDS}
    assert marks == {b"L"}


async def test_one_whose_gateway_died_is_spread_by_another_until_the_archive_has_it(redis: Any) -> None:
    scripts, spreader = parts(redis)
    await scripts.rule_on_all(ANN, "sam", "block", **WHY)
    await spreader.look()
    assert set((await values(redis, "ann|sam")).values()) == {"B|1|1"}
    assert await pending(redis) == [b"ann|sam"], "the archive does not have it"
    await archive_all(redis)
    await let_all_be_due(redis)
    await spreader.look()
    assert await pending(redis) == []


async def test_a_shard_that_is_rebuilt_without_it_gets_it_from_the_next_pass(redis: Any) -> None:
    scripts, spreader = parts(redis)
    made = await scripts.rule_on_all(ANN, None, "block", **WHY)
    lost = OTHERS[7]
    cursors = await redis.hgetall(cursors_key(lost))
    await redis.delete(cursors_key(lost))
    assert not await spreader.spread(ANN, made), "one shard is lost: it does not hold everywhere"
    await archive_all(redis)
    await redis.delete(cursors_key(lost))
    await let_all_be_due(redis)
    await spreader.look()
    assert await pending(redis) == [b"ann"]
    await redis.hset(cursors_key(lost), mapping=cursors | {b"epoch": b"2"})
    await let_all_be_due(redis)
    await spreader.look()
    assert set((await values(redis)).values()) == {"B|1|1"}
    assert await pending(redis) == []


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))), ids=str)
async def test_the_latest_one_wins_in_whichever_order_copies_come(redis: Any, order: tuple[int, ...]) -> None:
    scripts, _ = parts(redis)
    made = [await scripts.rule_on_all(ANN, None, ruling, **WHY) for ruling in ("block", "unblock", "approve")]
    assert [each.value for each in made] == ["B|1|1", "|1|2", "A|1|3"]
    for number in order:
        await scripts.copy(HOME, {ANN: made[number].value})
    assert set((await values(redis)).values()) == {"A|1|3"}


async def test_one_that_was_taken_back_is_forgotten_after_an_hour_and_not_before(redis: Any) -> None:
    scripts, spreader = parts(redis)
    blocked = await scripts.rule_on_all(ANN, None, "block", **WHY)
    await spreader.spread(ANN, blocked)
    await scripts.rule_on_all(ANN, None, "unblock", **WHY)
    await archive_all(redis)
    await spreader.look()
    assert set((await values(redis)).values()) == {"|1|2"}
    [(member, due_us)] = await redis.zrange(spreading_key(HOME), 0, -1, withscores=True)
    seconds, _ = await redis.time()
    assert member == b"!ann"
    assert due_us / 1e6 - seconds == pytest.approx(3_600, abs=30)
    # An older copy comes late: the one that was taken back keeps it out.
    await scripts.copy(HOME, {ANN: blocked.value})
    assert set((await values(redis)).values()) == {"|1|2"}
    await spreader.look()
    assert set((await values(redis)).values()) == {"|1|2"}, "it is not due"
    await let_all_be_due(redis)
    await spreader.look()
    assert set((await values(redis)).values()) == {None}
    assert await pending(redis) == []


async def test_one_that_is_made_again_is_not_forgotten(redis: Any) -> None:
    """It is about to be forgotten, and is made again, and taken back again, in between."""
    scripts, spreader = parts(redis)
    for ruling in ("block", "unblock"):
        await scripts.rule_on_all(ANN, None, ruling, **WHY)
    await archive_all(redis)
    await spreader.look()
    await let_all_be_due(redis)
    found = (await scripts.pending([HOME], count=10))[HOME]
    assert [(one.field, one.is_to_be_forgotten) for one in found] == [(ANN, True)]
    await scripts.rule_on_all(ANN, None, "block", **WHY)
    await scripts.settle(HOME, ANN, found[0].value or "", "forgotten")
    assert (await values(redis))[HOME] == "B|1|3"
    await scripts.rule_on_all(ANN, None, "unblock", **WHY)
    await scripts.settle(HOME, ANN, "|1|4", "forgotten")
    assert (await values(redis))[HOME] == "|1|4", "it is still to be spread"
    await spreader.look()
    assert set((await values(redis)).values()) == {"|1|4"}


async def test_bounds(redis: Any) -> None:
    scripts, _ = parts(redis, all_max=2)
    await scripts.rule_on_all("ann", None, "block", **WHY)
    home = home_of("ann")
    same = [user for user in (f"u{n}" for n in range(1_000)) if home_of(user) == home][:2]
    await scripts.rule_on_all(same[0], None, "approve", **WHY)
    with pytest.raises(TooManyRulings):
        await scripts.rule_on_all(same[1], None, "approve", **WHY)
    # What is there can be changed.
    assert (await scripts.rule_on_all("ann", None, "approve", **WHY)).value == "AB|1|3"
    assert (await scripts.rule_on_all("ann", None, "approve", **WHY)).entry == 0
    assert (await scripts.rule_on_all(same[1], None, "unblock", **WHY)) == Made(same[1], "", 0)
    assert await redis.xlen(outbox_key(home)) == 3
    full = RulingScripts(redis, ScriptLimits(outbox_entries_max=3))
    with pytest.raises(OutboxFull):
        await full.rule_on_all("ann", None, "unblock", **WHY)
    await redis.hdel(cursors_key(home), "epoch")
    with pytest.raises(ShardLost):
        await scripts.rule_on_all("ann", None, "unblock", **WHY)


async def test_sellers_together_leave_half_of_the_room_to_the_house(redis: Any) -> None:
    scripts, _ = parts(redis, all_max=2)
    home = home_of("ann")
    other = next(user for user in (f"u{n}" for n in range(1_000)) if home_of(user) == home)
    await scripts.rule_on_all("ann", "sam", "block", **WHY)
    with pytest.raises(TooManyRulings):
        await scripts.rule_on_all(other, "sam", "block", **WHY)
    with pytest.raises(TooManyRulings):
        await scripts.rule_on_all(other, "tom", "block", **WHY)
    assert (await scripts.rule_on_all(other, None, "block", **WHY)).entry == 2


async def test_one_seller_leaves_room_to_the_other_sellers(redis: Any) -> None:
    scripts, _ = parts(redis, seller_max=2)
    home = home_of("ann")
    ann, bob, cyd = [user for user in (f"u{n}" for n in range(1_000)) if home_of(user) == home][:3]
    await scripts.rule_on_all(ann, "sam", "block", **WHY)
    await scripts.rule_on_all(ann, "samson", "block", **WHY)
    await scripts.rule_on_all(bob, "sam", "block", **WHY)
    with pytest.raises(TooManyRulings):
        await scripts.rule_on_all(cyd, "sam", "block", **WHY)
    # What is there may be ruled again and taken back; others go on, each up to as many.
    assert (await scripts.rule_on_all(ann, "sam", "block", **WHY)).entry == 0
    await scripts.rule_on_all(cyd, "samson", "block", **WHY)
    with pytest.raises(TooManyRulings):
        await scripts.rule_on_all(bob, "samson", "block", **WHY)
    await scripts.rule_on_all(bob, "sam", "unblock", **WHY)
    await scripts.rule_on_all(cyd, None, "block", **WHY)


async def test_a_recovered_home_takes_later_rulings_for_later(redis: Any) -> None:
    """Its entries begin at 1 again, in a higher epoch."""
    scripts, spreader = parts(redis)
    for ruling in ("approve", "block"):
        await spreader.spread(ANN, await scripts.rule_on_all(ANN, None, ruling, **WHY))
    await open_shard(redis, HOME, epoch=2)
    await redis.delete(outbox_key(HOME))
    await spreader.spread(ANN, await scripts.rule_on_all(ANN, None, "unblock", **WHY))
    assert set((await values(redis)).values()) == {"A|2|1"}
    assert HouseRuling.decode(b"A|2|1") == HouseRuling(True, False, 2, 1)


async def test_what_only_copies_have_can_be_taken_back(redis: Any) -> None:
    """The home was lost, and rebuilt from an archive that did not have the ruling yet."""
    scripts, spreader = parts(redis, all_max=1)
    assert await spreader.spread(ANN, await scripts.rule_on_all(ANN, None, "block", **WHY))
    await redis.delete(rulings_key(HOME), spreading_key(HOME), outbox_key(HOME))
    await open_shard(redis, HOME, epoch=2)
    same = next(user for user in (f"u{n}" for n in range(1_000)) if home_of(user) == HOME)
    await scripts.rule_on_all(same, None, "block", **WHY)
    made = await scripts.rule_on_all(ANN, None, "unblock", **WHY)
    assert made == Made(ANN, "|2|2", 2), "also where there is no room: the copies have theirs"
    assert await spreader.spread(ANN, made)
    assert set((await values(redis)).values()) == {"|2|2"}
    # Nothing of it stays for ever.
    await archive_all(redis)
    for _ in range(2):
        await let_all_be_due(redis)
        await spreader.look()
    assert set((await values(redis)).values()) == {None}
    assert (await scripts.rule_on_all(ANN, None, "unblock", **WHY)) == Made(ANN, "", 0)


@pytest.mark.parametrize("module", [scripts_module, account_scripts_module], ids=lambda module: str(module.__name__))
def test_the_scripts_touch_one_slot(module: Any) -> None:
    """No key but those that are handed to them, which are of one shard."""
    files = sorted((Path(module.__file__).parent / "lua").glob("*.lua"))
    assert len(files) >= 3
    for path in files:
        text = path.read_text()
        assert "redis.call('" in text
        for line in text.splitlines():
            if "redis.call('" in line and "'TIME'" not in line:
                assert "KEYS[" in line, (path.name, line)


async def test_a_gateway_that_dies_half_way_and_a_redis_that_is_wiped(start_stack: StackFactory) -> None:
    """Killed when the ruling is made and nowhere else; then `recover`, under a new epoch."""
    env = {"CRASH_AT": "rulings.made:3", "OPEN_CATALOGUE": "false"}
    stack = await start_stack(services=(API_GATEWAY, ARCHIVAL_WORKER), env=env)
    async with house_of(stack) as house:
        await house.create("members", approval_required=True, seller_id="sam")
        await house.create("plain")
        for path in (
            "items/members/bidders/ann/approval",
            "items/members/bidders/bob/approval",
            "bidders/cyd/approval",
        ):
            assert (await house.http.put(f"/api/v1/{path}")).status_code == 200
        await house.http.put("/api/v1/items/members/bidders/ann/limit", json={"amount": 50})
        await house.http.delete("/api/v1/items/members/bidders/bob/approval")
        await house.http.put("/api/v1/sellers/sam/bidders/dan/block")
        await house.create("dear")
        await house.accepted("dear", "fay", "fay-1", amount=5, max_amount=80)
        limited = await house.http.put("/api/v1/bidders/fay/limit", json={"amount": 100})
        assert limited.json()["remaining"] == 20
        with pytest.raises(Exception, match=r"disconnected|reset|closed|refused"):
            await house.http.put("/api/v1/bidders/eve/block")
        assert await stack.wait_ended(API_GATEWAY)
        gateway = stack.processes[API_GATEWAY]
        gateway.spec = replace(gateway.spec, env={**gateway.spec.env, "CRASH_AT": ""})
        await stack.start_process(API_GATEWAY)
        await eventually(house.is_ready, seconds=60)

        async def has_all() -> bool:
            return None not in (await values(house.redis, "eve")).values()

        await eventually(has_all, seconds=30)
        await check(house)
        await house.all_archived()
        await house.lose_redis()
        code, told = await house.recover()
        assert code == 0, told
        await eventually(house.is_ready, seconds=60)
        await check(house)
        assert (await house.item("members"))["approval_required"] is True
        # What is ruled from now on is later than what came back.
        await house.http.delete("/api/v1/bidders/eve/block")
        assert (await house.bid("plain", "eve", "after", amount=90)).status_code == 201
        assert (await house.bid("plain", "fay", "fay-3", amount=95)).json()["code"] == "LIMIT_EXCEEDED"
        await house.accepted("dear", "gil", "gil-1", amount=81)
        await house.accepted("plain", "fay", "fay-4", amount=95)


async def check(house: Any) -> None:
    """What was ruled, by what bids are answered."""
    for number, (item, user, amount, wanted) in enumerate(
        [
            ("members", "bob", 5, "NOT_APPROVED"),
            ("members", "dan", 5, "BLOCKED"),
            ("members", "ann", 51, "LIMIT_EXCEEDED"),
            ("members", "eve", 5, "BLOCKED"),
            ("plain", "eve", 5, "BLOCKED"),
        ]
    ):
        answer = await house.bid(item, user, f"try-{number}", amount=amount)
        assert answer.json().get("code") == wanted, (item, user, answer.text)
    beyond = await house.bid("plain", "fay", "fay-2", amount=30)
    assert beyond.json().get("code") == "LIMIT_EXCEEDED", beyond.text
    spent = (await house.http.get("/api/v1/bidders/fay/limit")).json()
    assert (spent["limit"], spent["committed"], spent["remaining"]) == (100, 80, 20)
    told = (await house.http.get("/api/v1/items/members/bidders/cyd")).json()
    assert (told["may_bid"], told["approved"], told["approved_for_all"]) == (True, False, True)
