"""Events of types that only a newer version knows: the archive keeps them whole, and stands still for none."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator

import msgspec
import pytest
import pytest_asyncio

from archival_worker.consume.deliveries import Delivery, read_delivery
from infrastructure.local.stack import Stack
from shared import names
from shared.messages import AuctionPaused, UnknownEvent, encode_event, frame_batch
from tests.integration.chain.chain_world import World, chain_world
from tests.stack import running_stack
from tests.unit.archival_worker.events import START_US, bid, created, delivery, of_the_future

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def servers() -> Iterator[Stack]:
    with running_stack(services=()) as stack:
        yield stack


@pytest_asyncio.fixture
async def world(servers: Stack) -> AsyncIterator[World]:
    async with chain_world(servers) as world:
        yield world


async def test_an_unknown_event_is_kept_whole_and_nothing_waits_for_it(world: World) -> None:
    unknown = of_the_future("lot-1", 2, colour="red", parts=[{"id": "a"}, None])
    stored = await world.store(created("lot-1"), bid("lot-1", 1), unknown, bid("lot-1", 3))
    assert (stored.bids, stored.events, stored.dead_letters, stored.unknown) == (2, 2, [], ["relisted"])
    row = await world.pool.fetchrow("SELECT type, body FROM events WHERE seq = 2")
    assert row is not None
    assert row["type"] == "relisted"
    assert json.loads(row["body"])["parts"] == [{"id": "a"}, None]
    assert await world.value("SELECT archived_n FROM shard_cursors WHERE archived_n > 0") == 4
    assert await world.chain() == 4
    report = await world.audit()
    assert (report.is_sound, report.up_to, report.waiting) == (True, "1:3", 0)


async def test_its_state_is_the_items_until_a_later_event(world: World) -> None:
    await world.store(created("lot-1"), of_the_future("lot-1", 1, current_bid=4_711))
    assert await world.value("SELECT current_bid FROM items") == 4_711


async def test_a_newer_version_finds_it_stored_and_no_clash(world: World) -> None:
    paused = AuctionPaused(
        item_id="lot-1",
        epoch=1,
        seq=1,
        ts_us=START_US,
        current_bid=100,
        highest_bidder_id=None,
        bid_count=0,
        min_next_bid=100,
        status="paused",
        end_us=None,
        reserve_met=False,
        currency="EUR",
        reason="a question",
        by=None,
    )
    members = {name: getattr(paused, name) for name in paused.__struct_fields__}
    body = json.dumps({"type": "paused", "since": "a later version", **members}).encode()
    older = UnknownEvent(
        **{name: members[name] for name in UnknownEvent.__struct_fields__ if name in members},
        type_name="paused",
        body=body,
    )
    assert (await world.archive.store([_as_read(older)])).events == 1
    again = await world.store(paused)
    assert (again.events, again.duplicates, again.clashes, again.dead_letters) == (0, 1, 0, [])
    other = await world.store(of_the_future("lot-1", 1))
    assert (other.duplicates, other.clashes) == (0, 1), "another type in its place is one"


def _as_read(event: UnknownEvent) -> Delivery:
    """The event as a version reads it that does not know its type."""
    sound = delivery(1, of_the_future(event.item_id, event.seq))
    assert sound.batch is not None
    return msgspec.structs.replace(sound, batch=msgspec.structs.replace(sound.batch, events=[event]))


@pytest.mark.parametrize("members", [{"ratio": 0.5}, {"seq": "1"}, {"parts": [{"x": [1e400]}]}])
async def test_what_has_not_the_form_of_an_event_is_a_dead_letter(world: World, members: dict[str, object]) -> None:
    data = json.dumps(json.loads(encode_event(of_the_future("lot-1", 1))) | members).encode()
    raw = frame_batch(names.shard_of("lot-1"), 1, 1, "lot-1", b"[%b]" % data)
    stored = await world.archive.store([read_delivery(names.subject_of("lot-1"), raw, "", None)])
    assert [reason for reason, _ in stored.dead_letters] == ["poison"]
