"""The chain over archived events and the audit of it, on a real PostgreSQL."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from archival_worker.chain.chainer import Chainer, ChainOptions
from archival_worker.chain.report import AuditImpossible
from archival_worker.errors import ArchiveUnavailable
from archival_worker.main import run
from archival_worker.settings import Settings
from infrastructure.local.stack import Stack
from tests.integration.chain.chain_world import World, auction, chain_world
from tests.unit.archival_worker.events import bid, created, delivery, voided
from tests.waiting import eventually

pytestmark = pytest.mark.integration


@pytest_asyncio.fixture
async def world(servers: Stack) -> AsyncIterator[World]:
    async with chain_world(servers) as world:
        yield world


async def test_every_event_gets_its_hash_and_an_audit_says_so(world: World) -> None:
    await world.store(*auction("lot-1", 9), *auction("lot-2", 3))
    assert await world.chain() == 11 + 5
    assert await world.value("SELECT count(*) FROM event_hashes") == 16
    report = await world.audit()
    assert (report.is_sound, report.fits, report.up_to, report.waiting) == (True, 11, "1:10", 0)
    assert (await world.audit("lot-2")).fits == 5
    with pytest.raises(AuditImpossible, match="no item lot-3"):
        await world.audit("lot-3")


async def test_the_chain_stops_at_a_gap_and_goes_on_when_it_is_filled(world: World) -> None:
    events = auction("lot-1", 5)
    await world.store(*events[:2], *events[3:])
    assert await world.chain() == 2
    assert "lot-1 for the one after 1:1" in world.chainer.alarms["chain"]
    report = await world.audit()
    assert (report.is_sound, report.fits, report.waiting) == (True, 2, 4)
    await world.store(events[2])
    assert await world.chain() == 5
    assert world.chainer.alarms == {}
    assert (await world.audit()).up_to == "1:6"


async def test_a_gap_that_another_archiver_filled_is_no_alarm_here(world: World) -> None:
    events = auction("lot-1", 3)
    await world.store(*events[:2], *events[3:])
    here = Chainer(world.pool, world.metrics, ChainOptions(linger_s=0.01, gap_alarm_s=0.1))
    running = asyncio.create_task(here.run())

    async def alarmed() -> bool:
        return "chain" in here.alarms

    async def quiet() -> bool:
        return not here.alarms

    await eventually(alarmed)
    await world.store(events[2])
    await world.chain()
    await eventually(quiet)
    running.cancel()
    await asyncio.wait([running])
    assert (await world.audit()).fits == 5


async def test_a_new_chainer_finds_what_an_old_one_left(world: World) -> None:
    for number in range(5):
        await world.store(*auction(f"lot-{number}", 2))
    fresh = Chainer(world.pool, world.metrics, ChainOptions(window=2))
    for _ in range(3):  # five items in windows of two
        await fresh.scan()
    assert fresh.waiting == 5
    assert await world.chain(fresh) == 20
    await fresh.scan()
    assert fresh.waiting == 0


async def test_several_chainers_never_spoil_a_chain(world: World) -> None:
    options = ChainOptions(rows_max=3, items_max=5)
    chainers = [Chainer(world.pool, world.metrics, options) for _ in range(4)]
    items = [f"lot-{number}" for number in range(6)]
    for item_id in items:
        await world.store(*auction(item_id, 10))
    for chainer in chainers:
        chainer.offer(items)
    added = await asyncio.gather(*(world.chain(chainer) for chainer in chainers))
    assert sum(added) == 6 * 12
    for item_id in items:
        assert (await world.audit(item_id)).fits == 12


HASH_TOO = "WITH gone AS (DELETE FROM event_hashes WHERE LOT seq = {0}) DELETE FROM {1} WHERE LOT seq = {0}"
END_TOO = (
    "WITH gone AS (DELETE FROM event_hashes WHERE LOT seq = 6), export AS (DELETE FROM exports WHERE LOT true), "
    "back AS (UPDATE chains SET seq = 5, hash = (SELECT hash FROM event_hashes WHERE LOT seq = 5) WHERE LOT true) "
    "DELETE FROM events WHERE LOT seq = 6"
)
SWAP = (
    "UPDATE bids AS b SET bid_id = o.bid_id, user_id = o.user_id, amount = o.amount, previous_bid = o.previous_bid, "
    "placed_at = o.placed_at FROM (SELECT * FROM bids WHERE LOT seq IN (2, 3)) AS o "
    "WHERE b.item_id = o.item_id AND b.seq + o.seq = 5"
)


@pytest.mark.parametrize(
    ("sql", "place", "kind"),
    [
        ("UPDATE bids SET amount = amount + 1 WHERE LOT seq = 4", "1:4", "bid"),
        ("UPDATE bids SET user_id = 'mallory' WHERE LOT seq = 2", "1:2", "bid"),
        ("UPDATE bids SET placed_at = placed_at + interval '1 microsecond' WHERE LOT seq = 3", "1:3", "bid"),
        ("UPDATE events SET body = jsonb_set(body, '{reserve_price}', '1') WHERE LOT seq = 0", "1:0", "created"),
        ("UPDATE events SET at = at - interval '1 second' WHERE LOT type = 'closed'", "1:6", "closed"),
        ("UPDATE events SET type = 'opened' WHERE LOT type = 'closed'", "1:6", "opened"),
        ("DELETE FROM bids WHERE LOT seq = 3", "1:3", None),
        (HASH_TOO.format(3, "bids"), "1:3", None),
        ("DELETE FROM events WHERE LOT type = 'closed'", "1:6", None),
        (HASH_TOO.format(6, "events"), "1:6", None),
        (SWAP, "1:2", "bid"),
        ("UPDATE event_hashes SET hash = sha256('x') WHERE LOT seq = 5", "1:5", "bid"),
        ("DELETE FROM event_hashes WHERE LOT seq = 2", "1:2", "bid"),
        ("DELETE FROM chains WHERE LOT true", "1:0", "created"),
        # Values that no hash covers, since they change or are derived, must agree with the values that hashes cover.
        ("UPDATE bids SET status = 'voided' WHERE LOT seq = 4", "1:4", "bid"),
        ("UPDATE items SET highest_bidder_id = 'mallory' WHERE LOT true", "1:6", "item"),
        ("UPDATE items SET current_bid = 1 WHERE LOT true", "1:6", "item"),
        ("UPDATE items SET reserve_price = 1 WHERE LOT true", "1:6", "item"),
        ("UPDATE items SET original_end_at = now() WHERE LOT true", "1:6", "item"),
        ("UPDATE items SET seq = 5 WHERE LOT true", "1:6", "item"),
        ("DELETE FROM items WHERE LOT true", "1:6", "item"),
        (END_TOO, "1:6", None),
    ],
)
async def test_what_is_changed_behind_our_back_is_named(world: World, sql: str, place: str, kind: str | None) -> None:
    await world.store(*auction("lot-1", 5), *auction("lot-2", 5))
    await world.chain()
    # Bid ids are unique per item, also in the middle of a statement that exchanges two.
    await world.pool.execute("ALTER TABLE bids DROP CONSTRAINT bids_item_id_epoch_bid_id_key")
    await world.tamper(sql.replace("LOT", "item_id = 'lot-1' AND"))
    report = await world.audit()
    assert report.finding is not None
    assert (report.finding.place, report.finding.type) == (place, kind), report.text()
    assert (await world.audit("lot-2")).is_sound


async def test_a_void_changes_the_row_of_a_bid_and_not_its_hash(world: World) -> None:
    await world.store(*auction("lot-1", 3)[:-1])
    await world.chain()
    # The bid, and the automatic bid that had answered it.
    await world.store(bid("lot-1", 4, bid_id="bid-1-3/proxy"), voided("lot-1", 5, voids=3), bid("lot-1", 6))
    await world.chain()
    assert await world.value("SELECT count(*) FROM bids WHERE status = 'voided'") == 2
    assert (await world.audit()).up_to == "1:6"
    await world.tamper("UPDATE bids SET status = 'valid' WHERE seq = 4")
    report = await world.audit()
    assert "bid 1:4 does not fit: it is marked as valid, and a void struck it" in report.text()


async def test_a_void_of_a_bid_of_a_former_epoch_is_judged_like_any_other(world: World) -> None:
    await world.store(*auction("lot-1", 3)[:-1])
    await world.store(voided("lot-1", 4, voids=3, epoch=2), bid("lot-1", 5, epoch=2))
    await world.chain()
    assert await world.value("SELECT array_agg(seq) FROM bids WHERE status = 'voided'") == [3]
    assert (await world.audit()).is_sound
    await world.tamper("UPDATE bids SET status = 'valid' WHERE seq = 3")
    report = await world.audit()
    assert "bid 1:3 does not fit: it is marked as valid, and a void struck it" in report.text()


async def test_items_whose_chaining_failed_wait_again(world: World) -> None:
    for item in ("lot-1", "lot-2", "lot-3"):
        await world.archive.store([delivery(1, created(item))])
    world.chainer.offer(["lot-1", "lot-2", "lot-3"])
    await world.pool.execute("ALTER TABLE chains RENAME TO chains_away")
    with pytest.raises(ArchiveUnavailable):
        await world.chainer.once()
    assert world.chainer.waiting == 3
    await world.pool.execute("ALTER TABLE chains_away RENAME TO chains")
    assert await world.chain() == 3, "without an offer or a scan"


@pytest.mark.parametrize("chains", [False, True])
async def test_an_archiver_may_leave_the_chain_to_a_later_one(world: World, servers: Stack, chains: bool) -> None:
    await world.store(*auction("lot-1", 3))
    settings = Settings(
        redis_url=servers.urls.redis_url,
        nats_url=servers.urls.nats_url,
        postgres_url=world.url,
        archiver_port=0,
        archiver_chain=chains,
    )
    running = asyncio.create_task(run(settings))

    async def is_up() -> bool:
        return "missing-entries" in {task.get_name() for task in asyncio.all_tasks()}

    async def is_chained() -> bool:
        return bool(await world.value("SELECT count(*) FROM event_hashes") == 5)

    try:
        await eventually(is_up)
        assert ("chainer" in {task.get_name() for task in asyncio.all_tasks()}) is chains
        if chains:
            await eventually(is_chained)
    finally:
        running.cancel()
        await asyncio.wait([running])
