"""Redis loses everything; `bidding recover` brings it back from PostgreSQL and the stream, under a new epoch."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from archival_worker.recovery.recover import RECOVERY_LOCK
from infrastructure.local.services import ALL_SERVICES, API_GATEWAY, ARCHIVAL_WORKER
from shared import names
from shared.redis_layout.keys import cursors_key, item_key, rebuilding_key
from tests.acceptance.crowd import Viewer
from tests.acceptance.test_one_bid_end_to_end import feed_url
from tests.integration.loss.recover_world import PROXY, RENEWED, House, Json, assert_refused_for_now, house_of
from tests.stack import StackFactory
from tests.waiting import eventually

pytestmark = pytest.mark.integration

PLAIN, SOLD, SCHEDULED, PAUSED, SOFT, VOIDED = "plain", "sold", "scheduled", "paused", "soft", "voided"
ITEMS = (PLAIN, PROXY, SOLD, SCHEDULED, PAUSED, SOFT, VOIDED)
HEADER_KEY = 'a_"quoted"_\\_key/1'


def from_now(**after: float) -> str:
    return (datetime.now(UTC) + timedelta(**after)).isoformat()


async def fill(house: House) -> dict[str, Json]:
    """Items in every state; what was answered to the bids that have a key."""
    answers: dict[str, Json] = {}
    await house.create(PLAIN)
    for number in range(1, 8):
        user = f"user-{number % 3}"
        answers[f"{PLAIN}-{number}"] = await house.accepted(PLAIN, user, f"{PLAIN}-{number}", amount=number)
    await house.create(PROXY, reserve_price=30, increment={"kind": "ladder"})
    answers["max-1"] = await house.accepted(PROXY, "ann", "max-1", amount=5, max_amount=50)
    answers["beaten"] = await house.accepted(PROXY, "bob", "beaten", amount=40)
    answers["raised"] = await house.accepted(PROXY, "ann", "raised", max_amount=60)
    answers["header"] = await house.by_header("cyd", HEADER_KEY, amount=43)
    await house.create(SOLD, buy_now_price=100)
    answers["bought"] = await house.accepted(SOLD, "cyd", "bought", amount=100)
    await house.create(SCHEDULED, start_time=from_now(hours=1), end_time=from_now(hours=2))
    await house.create(PAUSED, end_time=from_now(hours=1))
    answers["before"] = await house.accepted(PAUSED, "ann", "before", amount=3)
    await house.operate(f"{PAUSED}/pause")
    soft = {"trigger_s": 7200, "extend_s": 7200, "max_count": 5, "hard_end": from_now(hours=9)}
    await house.create(SOFT, end_time=from_now(hours=1), soft_close=soft)
    await house.accepted(SOFT, "ann", "late-1", amount=1)
    await house.operate(f"{SOFT}/pause")
    await house.operate(f"{SOFT}/resume")
    await house.accepted(SOFT, "bob", "late-2", amount=2)
    await house.create(VOIDED)
    for number, user in enumerate(("ann", "bob", "cyd"), start=1):
        await house.accepted(VOIDED, user, f"{VOIDED}-{number}", amount=number)
    await house.all_archived()
    await house.operate(f"{VOIDED}/bids/{VOIDED}-3/void")
    await house.accepted(VOIDED, "dan", f"{VOIDED}-4", amount=4)
    await house.all_archived()
    return answers


async def test_everything_comes_back_under_a_new_epoch(start_stack: StackFactory) -> None:
    async with house_of(await start_stack(services=ALL_SERVICES)) as house:
        answers = await fill(house)
        viewer = Viewer(feed_url(house.stack), PLAIN)
        await viewer.start()
        before = {item: (await house.item(item), await house.hash(item), await house.recent(item)) for item in ITEMS}
        verdicts, deadlines = await house.verdicts(), await house.deadlines()

        await house.lose_redis()
        stranger = next(f"x{n}" for n in range(10_000) if names.shard_of(f"x{n}") == names.shard_of(PLAIN))
        await assert_refused_for_now(house, *ITEMS, stranger)
        await eventually(house.is_degraded)
        code, told = await house.bidding("recover", "--dry-run")
        assert code == 0, told
        assert "Would rebuild" in told
        assert await house.redis.keys("*:item:*") == []
        code, told = await house.bidding("recover", "--settle-s", "0")
        assert code == 0, told
        assert "recent events and 1 maxima, " in told

        for item_id, (public, fields, recent) in before.items():
            now = await house.item(item_id)
            assert now == public | {"epoch": RENEWED}, item_id
            assert await house.hash(item_id) == fields | {"epoch": str(RENEWED)}, item_id
            assert await house.recent(item_id) == recent, item_id
        assert await house.deadlines() == deadlines
        assert await house.verdicts() == verdicts
        assert await house.maxima(PROXY) == {b"ann": b"6000"}

        for number in range(1, 8):
            again = await house.bid(PLAIN, f"user-{number % 3}", f"{PLAIN}-{number}", amount=number)
            assert (again.status_code, again.json()) == (201, answers[f"{PLAIN}-{number}"])
        assert (await house.bid(PROXY, "bob", "beaten", amount=40)).json() == answers["beaten"]
        assert (await house.bid(SOLD, "cyd", "bought", amount=100)).json() == answers["bought"]
        asked = await house.http.get("/api/v1/bids/by-key/max-1", params={"item_id": PROXY})
        assert asked.json() == answers["max-1"]
        for bid_id, sent in (("max-1", {"amount": 5.0, "max_amount": 50.0}), ("raised", {"max_amount": 60.0})):
            assert (await house.bid(PROXY, "ann", bid_id, **sent)).json() == answers[bid_id]
            other = await house.bid(PROXY, "ann", bid_id, max_amount=61)
            assert (other.status_code, other.json()["code"]) == (422, "KEY_REUSED")
        assert await house.by_header("cyd", HEADER_KEY, amount=43) == answers["header"]
        assert (await house.by_header("cyd", HEADER_KEY, amount=44))["code"] == "KEY_REUSED"
        rival = await house.accepted(PROXY, "dan", "rival", amount=59)
        assert (rival["is_highest"], rival["current_bid"]) == (False, 60), "the maximum that was raised answers"

        for item_id, code_ in ((SOLD, "SOLD"), (SCHEDULED, "NOT_STARTED"), (PAUSED, "PAUSED")):
            refusal = await house.bid(item_id, "eve", f"new-{item_id}", amount=500)
            assert refusal.json()["code"] == code_
        assert await house.item(PLAIN) == before[PLAIN][0] | {"epoch": RENEWED}
        new = await house.accepted(PLAIN, "eve", "new-1", amount=8)
        assert (new["seq"], new["event_id"]) == (8, f"{PLAIN}:{RENEWED}:8")
        await house.operate(f"{PAUSED}/resume")
        await house.accepted(PAUSED, "eve", "after", amount=9)
        opened = await house.accepted(stranger, "eve", "first", amount=1)
        assert opened["event_id"] == f"{stranger}:{RENEWED}:1", "it may have been there before, unarchived"
        await viewer.reached(8)
        assert viewer.version == (RENEWED, 8)
        renewed = [frame["type"] for frame in viewer.frames if frame.get("epoch") == RENEWED]
        assert renewed[0] == "snapshot", "the rebuilt item, without waiting for a bid"
        await viewer.stop()

        await house.all_archived()
        history = await house.history(PLAIN)
        assert [bid["seq"] for bid in history] == list(range(8, 0, -1))
        assert len({bid["bid_id"] for bid in history}) == 8
        stored = await house.query("SELECT epoch, seq FROM bids WHERE item_id = $1 ORDER BY epoch, seq", PLAIN)
        assert [tuple(row) for row in stored] == [*((1, seq) for seq in range(1, 8)), (RENEWED, 8)]
        (item,) = await house.query("SELECT epoch, seq FROM items WHERE item_id = $1", PLAIN)
        assert tuple(item) == (RENEWED, 8)
        (cursor,) = await house.query(
            "SELECT shard_epoch, archived_n FROM shard_cursors WHERE shard = $1", names.shard_of(PLAIN)
        )
        assert tuple(cursor) == (RENEWED, 3)

        code, told = await house.recover()
        assert code == 3, told
        assert "nothing was changed" in told
        await eventually(house.is_ready)


async def test_what_was_not_archived_comes_from_the_stream_and_a_killed_run_is_finished(
    start_stack: StackFactory,
) -> None:
    async with house_of(await start_stack(services=(API_GATEWAY, ARCHIVAL_WORKER))) as house:
        items = [f"lot-{number}" for number in range(6)]
        for item in items:
            await house.accepted(item, "ann", f"{item}-1", amount=1)
        await house.all_archived()
        await house.stack.stop_process(ARCHIVAL_WORKER)
        for item in items:
            await house.accepted(item, "bob", f"{item}-2", amount=2)
        await house.all_published()
        await house.lose_redis()

        code, told = await house.recover(crash_at="recover.items:3")
        assert code != 0, told
        done = {shard for shard in names.SHARDS if await house.redis.exists(cursors_key(shard))}
        begun = {shard for shard in names.SHARDS if await house.redis.exists(rebuilding_key(shard))}
        lost = {names.shard_of(item) for item in items}
        assert done & lost
        assert begun
        assert begun.isdisjoint(done)
        await assert_refused_for_now(house, *(item for item in items if names.shard_of(item) not in done))

        code, told = await house.recover()
        assert code == 0, told
        assert "0 events from the stream" in told, "the killed run had stored them"
        for item in items:
            state = await house.item(item)
            assert (state["current_bid"], state["highest_bidder_id"], state["seq"]) == (2, "bob", 2)
            assert state["epoch"] >= RENEWED
            assert (await house.bid(item, "bob", f"{item}-2", amount=2)).json()["seq"] == 2
            assert (await house.accepted(item, "cyd", f"{item}-3", amount=3))["seq"] == 3
        await house.stack.start_process(ARCHIVAL_WORKER)
        await house.all_archived()
        for item in items:
            assert [bid["seq"] for bid in await house.history(item)] == [3, 2, 1]
        assert await house.query("SELECT * FROM dead_letters") == []


async def test_an_epoch_is_never_given_out_twice(start_stack: StackFactory) -> None:
    async with house_of(await start_stack(services=(API_GATEWAY, ARCHIVAL_WORKER))) as house:
        await house.accepted(PLAIN, "ann", "one", amount=1)
        await house.all_archived()
        for epoch in (2, 3):
            # In between nothing of the new epoch is published, so nothing but the record of recoveries knows of it.
            await house.lose_redis()
            await assert_refused_for_now(house, PLAIN)
            code, told = await house.recover()
            assert code == 0, told
            assert (await house.item(PLAIN))["epoch"] == epoch
        assert (await house.accepted(PLAIN, "ann", "two", amount=2))["event_id"] == f"{PLAIN}:3:2"
        await house.all_archived()

        slip = next(f"slip-{n}" for n in range(10_000) if names.shard_of(f"slip-{n}") == names.shard_of(PLAIN))
        code, told = await house.recover("--item", slip)
        assert (code, "knows an item" in told) == (3, True), told
        assert (await house.accepted(PLAIN, "ann", "three", amount=3))["event_id"] == f"{PLAIN}:3:3", (
            "nothing was closed"
        )
        await house.redis.delete(item_key(PLAIN))
        code, told = await house.recover("--item", PLAIN, "--dry-run")
        assert (code, "Would rebuild 1 shards: 1 items" in told) == (0, True), told
        assert f"@{house.stack.urls.redis_url.removeprefix('redis://')}" in told
        assert await house.redis.hexists(cursors_key(names.shard_of(PLAIN)), "epoch"), "nothing was changed"


async def test_a_shard_that_has_lost_its_cursors_alone_is_left_alone(start_stack: StackFactory) -> None:
    async with house_of(await start_stack(services=(API_GATEWAY, ARCHIVAL_WORKER))) as house:
        await house.accepted(PLAIN, "ann", "one", amount=1)
        await house.all_archived()
        fields = await house.hash(PLAIN)
        await house.redis.delete(cursors_key(names.shard_of(PLAIN)))
        code, told = await house.recover()
        assert code == 1, told
        assert "left alone" in told
        assert await house.hash(PLAIN) == fields
        await assert_refused_for_now(house, PLAIN)


async def test_a_fresh_installation_has_nothing_to_recover(start_stack: StackFactory) -> None:
    async with house_of(await start_stack(services=(ARCHIVAL_WORKER,))) as house:
        code, told = await house.recover()
        assert code == 3, told
        assert "new, not lost" in told
        async with house.connected() as connection:
            await connection.execute("SELECT pg_advisory_lock($1)", RECOVERY_LOCK)
            code, told = await house.recover()
            assert (code, "under way" in told) == (3, True)
        code, told = await house.bidding("dead-letters", "list", "--json")
        assert (code, json.loads(told)) == (0, [])
