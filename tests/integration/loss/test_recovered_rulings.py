"""What a rebuilt home does with rulings: shards that were not lost may have missed the last of them."""

from __future__ import annotations

from typing import Any, cast

import pytest

from api_gateway.engine.accounts.accounts import Accounts, Spending
from api_gateway.engine.accounts.scripts import AccountScripts
from api_gateway.engine.item_scripts import ItemScripts, ScriptLimits
from api_gateway.engine.rulings.scripts import RulingScripts
from api_gateway.engine.rulings.spreader import Spreader
from shared import names
from shared.redis_layout.keys import account_key, cursors_key, rulings_key, spreading_key
from shared.redis_layout.rulings import home_of
from tests.integration.archive.archive_world import World
from tests.integration.loss.test_recover_all_of_it import LOT, archive_of, recovered
from tests.unit.archival_worker.events import bid, created, delivery

pytestmark = pytest.mark.integration

RULED = """
INSERT INTO rulings (shard, shard_epoch, n, at, seller_id, user_id, ruling, approved, blocked, max_amount, currency,
                     reason, actor, decided_at)
VALUES ($1, 1, $2, 0, $3, $4, $5, false, $6, $7, $8, 'a test', 'olga', now() - $9 * interval '1 day')
"""


async def no_account(user_id: str, currency: str) -> None:
    """Looks after no account: these tests are about rulings."""


async def test_rulings_of_a_rebuilt_home_are_spread_once_more_also_those_taken_back(world: World) -> None:
    redis: Any = cast(Any, world.redis)
    await redis.flushall()
    ann, bob, old, eve = "ann", "bob", "cyd", "eve"
    async with archive_of(world) as archive:
        await archive.store([delivery(1, created(LOT))])
        for n, (user, seller, ruling, blocked, most, currency, days) in enumerate(
            [
                (ann, None, "block", True, None, None, 3),
                (ann, None, "unblock", False, None, None, 2),
                (bob, "sam", "block", True, None, None, 30),
                (old, None, "unblock", False, None, None, 30),
                (eve, None, "limit", False, 500, "USD", 30),
            ],
            start=1,
        ):
            await world.query(RULED, home_of(user), n, seller, user, ruling, blocked, most, currency, days)
        await recovered(world, archive)

    spread = {shard: await redis.zrange(spreading_key(shard), 0, -1) for shard in names.SHARDS}
    found = sorted((shard, member.decode()) for shard, members in spread.items() for member in members)
    assert found == sorted([(home_of(ann), ann), (home_of(bob), "bob|sam"), (home_of(eve), "$eve|USD")])
    assert await redis.hget(rulings_key(home_of(ann)), ann) == b"|1|2"
    assert await redis.hget(rulings_key(home_of(old)), old) is None, "every shard has had that for long"
    numbers = await redis.hget(account_key(eve, "USD"), "counting")
    assert int(numbers) > 1_000, "no gateway that slept meanwhile knows such a number"

    # A shard that was not lost has missed that one block was taken back, and the other block.
    stale = next(shard for shard in names.SHARDS if shard not in (home_of(ann), home_of(bob)))
    await redis.hset(rulings_key(stale), ann, "B|1|1")
    await redis.hdel(rulings_key(stale), "bob|sam")
    spreader = Spreader(
        RulingScripts(cast(Any, redis), ScriptLimits()), owned_shards=lambda: names.SHARDS, look_after=no_account
    )
    await spreader.look()
    assert await redis.hgetall(rulings_key(stale)) == {ann.encode(): b"|1|2", b"bob|sam": b"B|1|3"}
    assert (await redis.hget(cursors_key(stale), "rulings")).startswith(b"L")


async def test_a_lead_that_comes_back_with_a_shard_takes_the_credit_that_lies_elsewhere(world: World) -> None:
    """That its bidder was outbid is lost, and what that released was leased to another shard."""
    redis: Any = cast(Any, world.redis)
    await redis.flushall()
    shard, user = names.shard_of(LOT), "ada"
    elsewhere = next(each for each in names.SHARDS if each not in (shard, home_of(user)))
    assert home_of(user) != shard
    async with archive_of(world) as archive:
        await archive.store([delivery(1, created(LOT)), delivery(2, bid(LOT, 1, user_id=user, amount=300))])
        await world.query(RULED, home_of(user), 1, None, user, "limit", False, 500, "EUR", 30)
        await recovered(world, archive)
        scripts = AccountScripts(redis, ScriptLimits())
        accounts = Accounts(scripts)
        await accounts.open(user, "EUR")
        assert await accounts.spending(user, "EUR") == Spending(500, 300)
        # She is outbid, and has the whole limit elsewhere; the shard loses that, and nothing of it was archived.
        item = ItemScripts(redis, ScriptLimits())
        await item.transition("cancel", LOT, reason="a test", by="olga")
        assert await accounts._find_credit(elsewhere, user, "EUR", 500)
        for key in await redis.keys(f"{{{shard}}}:*"):
            await redis.delete(key)
        await recovered(world, archive)
    assert await accounts.spending(user, "EUR") == Spending(500, 300)

    spreader = Spreader(
        RulingScripts(redis, ScriptLimits()), owned_shards=lambda: names.SHARDS, look_after=accounts.look_after
    )
    await spreader.look()
    [part] = await scripts.in_shards(user, "EUR", [elsewhere])
    assert part.lease is not None
    assert part.lease.granted == 0
    assert not await accounts._find_credit(elsewhere, user, "EUR", 201)
    assert await accounts._find_credit(elsewhere, user, "EUR", 200)
