"""Dead letters are listed, and stored once what was wrong is mended; what they prove stays."""

from __future__ import annotations

import json

import pytest

from cache_node.rebuilds import Rebuilds
from infrastructure.local.services import ARCHIVAL_WORKER
from shared.archive_reads.asking import Asking
from shared.clients.postgres import open_postgres
from shared.permissions.accounts import Account
from tests.integration.archive.archive_world import World
from tests.preforked import run_forked
from tests.unit.archival_worker.events import bid, created, message_id, message_of, sealed, voided

pytestmark = pytest.mark.integration

LOT = "lot-1"


async def dead_letters(world: World, *arguments: str) -> tuple[int, str]:
    """Exit code and output of the command, on the world's own database."""
    return await run_forked(ARCHIVAL_WORKER, "dead-letters", *arguments, env=world.urls_of(Account.OPERATOR))


async def execute(world: World, sql: str) -> None:
    await world.query(sql)


async def test_a_poison_is_stored_once_its_cause_is_mended(world: World) -> None:
    running = await world.start_worker()
    await world.publish(1, created(LOT))
    await world.all_archived()
    await execute(world, "ALTER TABLE bids ADD CONSTRAINT odd CHECK (user_id <> 'eve')")
    await world.publish(2, bid(LOT, 1), bid(LOT, 2, user_id="eve"))
    await world.publish(3, bid(LOT, 3))
    await world.publish(4, voided(LOT, 4, voids=2))
    await world.all_archived()
    assert (await running.archive.dead_letters()).all == 1

    code, told = await dead_letters(world, "list")
    assert code == 0
    assert "poison" in told
    assert LOT in told
    assert "odd" in told, "the reason is there"
    code, told = await dead_letters(world, "retry", "--all")
    assert code == 1
    assert "still refuses" in told
    assert (await running.archive.dead_letters()).all == 1
    assert await world.value("SELECT outcome FROM dead_letters") == "poison"

    await execute(world, "ALTER TABLE bids DROP CONSTRAINT odd")
    code, told = await dead_letters(world, "retry", "1")
    assert (code, told) == (0, "1: stored: stored\n")
    rows = await world.query("SELECT seq, status FROM bids ORDER BY seq")
    assert [(row["seq"], row["status"]) for row in rows] == [(1, "valid"), (2, "voided"), (3, "valid")]
    (item,) = await world.query("SELECT seq, current_bid FROM items")
    assert item == {"seq": 4, "current_bid": 100}, "what is older does not replace the newest state"
    assert await world.archived(LOT) == 4
    assert (await running.archive.dead_letters()).all == 0

    assert await dead_letters(world, "list", "--json") == (0, "[]\n")
    code, told = await dead_letters(world, "list", "--all", "--json")
    (letter,) = json.loads(told)
    assert (letter["id"], letter["item_id"], letter["n"], letter["outcome"]) == (1, LOT, 2, "stored")
    assert letter["retried_at"] > letter["at"]
    code, told = await dead_letters(world, "retry", "1")
    assert code == 0
    assert "earlier retry" in told
    assert await world.count("bids") == 3


async def test_a_node_of_the_read_cache_notices_what_a_retry_stores(world: World) -> None:
    """The letter was acknowledged as one long ago, and no event tells of it now."""
    await world.start_worker()
    forgotten: list[int] = []
    pool = await open_postgres(world.postgres_url, name="test", connections_max=1)
    try:
        rebuilds = Rebuilds(Asking(pool), lambda: forgotten.append(1), on_blind=lambda: None, on_sight=lambda: None)
        await rebuilds.look()
        await world.publish(1, created(LOT))
        await execute(world, "ALTER TABLE bids ADD CONSTRAINT odd CHECK (user_id <> 'eve')")
        await world.publish(2, bid(LOT, 1, user_id="eve"))
        await world.all_archived()
        assert (await dead_letters(world, "retry", "1"))[0] == 1
        await rebuilds.look()
        assert forgotten == [], "nothing has changed"
        await execute(world, "ALTER TABLE bids DROP CONSTRAINT odd")
        assert (await dead_letters(world, "retry", "1"))[0] == 0
        await rebuilds.look()
        assert forgotten == [1]
        await rebuilds.look()
        assert forgotten == [1]
    finally:
        pool.terminate()


async def test_a_clash_stays_until_its_place_is_mended(world: World) -> None:
    running = await world.start_worker()
    await world.publish_all([(1, [created(LOT)]), (2, [bid(LOT, 1)])])
    await world.publish(3, bid(LOT, 1, bid_id="other", user_id="eve"))
    await world.all_archived()
    code, told = await dead_letters(world, "retry", "--all")
    assert code == 1
    assert told == "1: clash: its place in the archive is still taken by another event\n"
    assert await world.count("dead_letters") == 1, "the same clash is the same letter"
    assert (await running.archive.dead_letters()).all == 1

    await execute(world, "DELETE FROM bids WHERE bid_id = 'bid-1-1'")
    assert (await dead_letters(world, "retry", "1"))[0] == 0
    assert await world.value("SELECT bid_id FROM bids") == "other"
    assert (await running.archive.dead_letters()).all == 0


async def test_sealed_facts_clash_as_loudly_and_tell_nobody_what_they_hold(world: World) -> None:
    running = await world.start_worker()
    first, other = sealed(LOT, 1, 471_100), sealed(LOT, 1, 471_200, user_id="eve")
    await world.publish(1, created(LOT))
    await world.publish_raw(LOT, message_of(LOT, 2, [bid(LOT, 1)], [first]), message_id(2, LOT))
    await world.publish_raw(LOT, message_of(LOT, 2, [bid(LOT, 1)], [first]), None)
    await world.all_archived()
    assert await world.count("dead_letters") == 0, "the same again is known"
    # A raise alone, of the same entry: a number of the outbox was given out twice.
    await world.publish_raw(LOT, message_of(LOT, 2, [], [other]), None)
    await world.publish_raw(LOT, message_of(LOT, 3, [], [sealed(LOT, 1, 471_300)]), message_id(3, LOT))
    await world.all_archived()
    assert await running.archive.dead_letters() == (1, 1, 0)
    assert [row["leader_max"] for row in await world.query("SELECT leader_max FROM sealed ORDER BY n")] == [
        471_100,
        471_300,
    ]
    assert await world.archived(LOT) == 3
    _, listed = await dead_letters(world, "list")
    assert "sealed fact 1 of entry 1:2" in listed
    assert "4712" not in listed
    assert (await dead_letters(world, "retry", "--all"))[0] == 1
    assert await running.archive.dead_letters() == (1, 1, 0)

    await execute(world, "DELETE FROM sealed WHERE n = 2")
    assert (await dead_letters(world, "retry", "--all"))[0] == 0
    assert await world.value("SELECT user_id FROM sealed WHERE n = 2") == "eve"
    assert await running.archive.dead_letters() == (0, 0, 0)


async def test_each_retry_is_told_at_once(world: World) -> None:
    await world.start_worker()
    await execute(world, "ALTER TABLE bids ADD CONSTRAINT odd CHECK (user_id <> 'eve')")
    await world.publish_all([(n, [bid(LOT, n, user_id="eve")]) for n in (1, 2)])
    await world.all_archived()
    await execute(world, "ALTER TABLE bids DROP CONSTRAINT odd")
    code, told = await dead_letters(world, "retry", "1", "9", "2")
    assert code == 1
    assert told.startswith("1: stored: stored\n"), "what came before the one that is not there"
    assert "there is no dead letter 9" in told
    await world.publish(3, bid(LOT, 1, bid_id="other"))
    await world.all_archived()
    code, told = await dead_letters(world, "retry", "--all")
    assert (code, told.splitlines()[-1]) == (1, "1 clash, 1 stored")


async def test_what_nobody_can_read_stays_what_it_is(world: World) -> None:
    await world.start_worker()
    await world.publish_raw(LOT, b'{"v":1,"events":[', message_id(1, LOT))
    await world.all_archived()
    code, told = await dead_letters(world, "retry", "1")
    assert code == 1
    assert told.startswith("1: poison: undecodable")
    assert (await dead_letters(world, "retry", "7"))[0] == 1
    assert (await dead_letters(world, "retry"))[0] == 2, "ids, or --all"
