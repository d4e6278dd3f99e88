"""What was ruled on bidders, and what operators did, in the archive: each once, in its place; loud if taken."""

from __future__ import annotations

from typing import Any

import msgspec

from shared import names
from shared.messages import frame_batch
from shared.redis_layout.rulings import house_of
from shared.sealed import Act, Ruling
from tests.integration.archive.archive_world import World
from tests.unit.archival_worker.events import START_US, bid, created, message_id

LOT = "lot"
SHARD = names.shard_of(LOT)
HOUSE = house_of(SHARD)


def ruling(user_id: str, what: str, **fields: Any) -> Ruling:
    told: dict[str, Any] = {
        **{"ts_us": START_US, "item_id": LOT, "seller_id": None, "user_id": user_id, "ruling": what, "limit": None},
        **{"approved": what == "approve", "blocked": what == "block", "reason": "", "by": "olga"},
    }
    return Ruling(**told | fields)


async def publish(world: World, n: int, *rulings: Ruling, at: str = LOT, epoch: int = 1, **options: Any) -> None:
    data = frame_batch(SHARD, epoch, n, at, b"[]", None, msgspec.json.encode(rulings))
    header = message_id(n, LOT, shard_epoch=epoch) if options.get("distinct", True) else None
    await world.jetstream.publish(names.subject_of(at), data, headers={"Nats-Msg-Id": header} if header else None)


async def test_each_is_stored_once_and_counts_for_the_cursor(world: World) -> None:
    running = await world.start_worker()
    await world.publish(1, created(LOT))
    await publish(world, 2, ruling("ann", "limit", limit=725, reason="a 'quoted' \\ one"))
    await publish(world, 2, ruling("ann", "limit", limit=725, reason="a 'quoted' \\ one"), distinct=False)
    await publish(world, 3, ruling("bob", "block", item_id=None, seller_id="sam"), at=HOUSE)
    await publish(world, 4, ruling("*", "approve", item_id=None), at=HOUSE)
    await world.all_archived()
    rows = await world.query("SELECT item_id, seller_id, user_id, ruling, max_amount, reason FROM rulings ORDER BY n")
    assert [tuple(row.values()) for row in rows] == [
        (LOT, None, "ann", "limit", 725, "a 'quoted' \\ one"),
        (None, "sam", "bob", "block", None, ""),
        (None, None, "*", "approve", None, ""),
    ]
    assert await world.archived(LOT) == 4
    assert await running.archive.dead_letters() == (0, 0, 0)
    assert await world.count("items") == 1, "the house is no item"


async def test_another_ruling_in_its_place_is_loud_and_can_be_mended(world: World) -> None:
    running = await world.start_worker()
    await publish(world, 1, ruling("ann", "block"))
    await publish(world, 1, ruling("eve", "block"), distinct=False)
    await world.all_archived()
    assert await running.archive.dead_letters() == (1, 1, 0)
    assert await world.value("SELECT detail FROM dead_letters") == (
        "ruling 1 of entry 1:1: its place is taken by another one"
    )
    assert await world.value("SELECT user_id FROM rulings") == "ann"


async def test_one_of_an_epoch_that_is_over_is_put_aside(world: World) -> None:
    running = await world.start_worker()
    await publish(world, 1, ruling("ann", "block"))
    await world.all_archived()
    await world.query("INSERT INTO recoveries (shard, shard_epoch) VALUES ($1, 2)", SHARD)
    await publish(world, 1, ruling("ann", "block"), distinct=False)
    await publish(world, 2, ruling("bob", "block"))
    await world.all_archived()
    assert await running.archive.dead_letters() == (1, 0, 1), "the first one is known, and does no harm"
    assert await world.count("rulings") == 1


async def test_what_does_not_fit_its_place_is_a_poison(world: World) -> None:
    running = await world.start_worker()
    await publish(world, 1, ruling("ann", "block", item_id="other"))
    await publish(world, 2, ruling("ann", "block"), at=HOUSE)
    data = frame_batch(SHARD, 1, 3, HOUSE, msgspec.json.encode([bid(LOT, 1)]))
    await world.jetstream.publish(names.subject_of(HOUSE), data)
    await world.all_archived()
    assert (await running.archive.dead_letters()).all == 3
    assert (await world.count("rulings"), await world.count("bids")) == (0, 0)
    assert await world.archived(LOT) == 3


async def test_an_act_is_stored_once_in_its_place_and_in_no_message_of_an_item(world: World) -> None:
    running = await world.start_worker()

    async def publish_act(n: int, target: str, at: str = HOUSE) -> None:
        act = Act(ts_us=START_US, act="revoke_tokens", target=target, reason="", by="oda")
        data = frame_batch(SHARD, 1, n, at, b"[]", acts_json=msgspec.json.encode([act]))
        await world.jetstream.publish(names.subject_of(at), data)

    for target in ("ann", "ann", "eve"):
        await publish_act(1, target)
    await publish_act(2, "bob", LOT)
    await world.all_archived()
    rows = await world.query("SELECT act, target, actor, n FROM acts")
    assert [tuple(row.values()) for row in rows] == [("revoke_tokens", "ann", "oda", 1)]
    letters = await world.query("SELECT reason, detail FROM dead_letters ORDER BY reason")
    assert [tuple(row.values()) for row in letters] == [
        ("clash", "act 1 of entry 1:1: its place is taken by another one"),
        ("poison", f"an act on the platform in a message of item {LOT}"),
    ]
    assert (await running.archive.dead_letters()).all == 2
    assert await world.archived(LOT) == 2
