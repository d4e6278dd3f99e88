"""What Redis has forgotten is recognised, and never given out again: empty, an older copy, or without a single item."""

from __future__ import annotations

import asyncio
import shutil
from functools import partial
from pathlib import Path
from typing import Any, cast

import nats
import pytest

from infrastructure.local.services import API_GATEWAY, ARCHIVAL_WORKER
from shared import names
from shared.redis_layout.keys import cursors_key, item_key, lease_key, lost_key, outbox_key
from tests.integration.loss.recover_world import (
    RENEWED,
    House,
    assert_being_rebuilt,
    assert_lost_for_now,
    assert_refused_for_now,
    house_of,
)
from tests.stack import StackFactory
from tests.waiting import eventually

pytestmark = pytest.mark.integration

PLAIN = "plain"


async def test_a_redis_wiped_before_anything_was_archived_is_not_taken_for_a_new_one(
    start_stack: StackFactory,
) -> None:
    """The stream has what the archive, which never ran, has not."""
    async with house_of(await start_stack(services=(API_GATEWAY,))) as house:
        told = {item: await house.accepted(item, "ann", f"{item}-1", max_amount=9) for item in ("lot-1", "lot-2")}
        await house.all_published()
        assert await house.query("SELECT * FROM shard_cursors WHERE archived_n > 0") == []
        await house.lose_redis()
        await assert_refused_for_now(house, "lot-1", "lot-2", "lot-3")
        for _ in range(20):
            # A gateway that looked again would give the shards new cursors.
            for item in ("lot-1", "lot-2", "lot-3"):
                assert_lost_for_now(await house.bid(item, "eve", "meanwhile", amount=1_000))
        await eventually(house.is_degraded)
        code, output = await house.recover()
        assert code == 0, output
        for item, answer in told.items():
            assert (await house.bid(item, "ann", f"{item}-1", max_amount=9)).json() == answer
            assert (await house.accepted(item, "bob", f"{item}-2", amount=5))["is_highest"] is False
        await eventually(house.is_ready)
        assert (await house.accepted("lot-3", "bob", "x", amount=5))["seq"] == 1


async def test_without_nats_an_empty_redis_is_neither_new_nor_lost(start_stack: StackFactory) -> None:
    async with house_of(await start_stack(services=(API_GATEWAY,))) as house:
        await house.accepted("lot-1", "ann", "one", amount=9)
        await house.all_published()
        await house.stack.stop_process("nats")
        await house.lose_redis()
        await eventually(house.is_degraded)
        await assert_refused_for_now(house, "lot-1", "lot-2")
        await house.stack.start_process("nats")
        await assert_refused_for_now(house, "lot-1", "lot-2")


async def put_back(house: House, copy: Path) -> None:
    """Stop Redis, and start it on an older copy of its folder."""
    await house.stack.stop_process("redis")
    shutil.rmtree(house.stack.data_dir / "redis")
    shutil.copytree(copy, house.stack.data_dir / "redis")
    await house.stack.start_process("redis")


@pytest.mark.parametrize("archived", [True, False])
async def test_an_older_copy_of_redis_is_recognised_and_gives_out_no_number_again(
    start_stack: StackFactory, tmp_path: Path, archived: bool
) -> None:
    services = (API_GATEWAY, ARCHIVAL_WORKER) if archived else (API_GATEWAY,)
    async with house_of(await start_stack(services=services)) as house:
        settled = house.all_archived if archived else house.all_published
        for item in ("lot-1", "quiet"):
            await house.accepted(item, "ann", f"{item}-1", amount=1, max_amount=2)
        await settled()
        await house.stack.stop_process("redis")
        shutil.copytree(house.stack.data_dir / "redis", tmp_path / "copy")
        await house.stack.start_process("redis")
        await eventually(house.is_ready, seconds=30)
        # From the first one on: that Redis closed the old connection is seen before a bid is sent over it.
        for number in range(2, 30):
            await house.accepted("lot-1", f"user-{number % 3}", f"lot-1-{number}", amount=number + 1)
        await settled()
        before = await house.item("lot-1")

        await put_back(house, tmp_path / "copy")
        # From the first bid on: what the connections are checked for has no window.
        answers = [await house.bid("lot-1", "eve", f"eve-{n}", amount=50 + n) for n in range(30)]
        assert {answer.status_code for answer in answers} == {503}, [answer.text for answer in answers][:3]
        await assert_refused_for_now(house, "lot-1")
        assert (await house.accepted("quiet", "bob", "quiet-2", amount=5))["seq"] == 2, "this shard is not behind"

        async def an_older_copy() -> bool:
            return "older copy" in (await house.http.get("/ready")).text

        # At first the shard is only one that is not initialised: a gateway says more once it has asked around.
        await eventually(an_older_copy)
        log = (house.stack.data_dir / "logs" / "api_gateway.log").read_text()
        assert "Redis went back: 1 shards" in log

        code, told = await house.recover("--dry-run")
        # A closed shard is lost by itself, whether the archive knows of it or not.
        assert (code, "1 of them are closed" in told) == (0, True), told
        code, told = await house.recover()
        assert code == 0, told
        assert await house.item("lot-1") == before | {"epoch": RENEWED}
        again = await house.bid("lot-1", "user-2", "lot-1-29", amount=30)
        assert again.json()["seq"] == before["seq"]
        assert (await house.accepted("lot-1", "eve", "eve-x", amount=90))["seq"] == before["seq"] + 1
        if archived:
            await house.all_archived()
        assert await house.query("SELECT * FROM dead_letters") == []


async def test_an_item_that_redis_lost_alone_does_not_begin_at_zero(start_stack: StackFactory) -> None:
    async with house_of(await start_stack(services=(API_GATEWAY, ARCHIVAL_WORKER))) as house:
        for amount in (1, 2, 3):
            await house.accepted(PLAIN, "ann", f"bid-{amount}", amount=amount)
        neighbour = next(f"x{n}" for n in range(10_000) if names.shard_of(f"x{n}") == names.shard_of(PLAIN))
        await house.accepted(neighbour, "bob", "one", max_amount=70)
        await house.all_archived()

        async def lost() -> None:
            await house.redis.delete(item_key(PLAIN))
            answer = await house.bid(PLAIN, "eve", "meanwhile", amount=50)
            assert (answer.status_code, answer.json()["code"]) in ((503, "BEING_REBUILT"), (503, "UNAVAILABLE"))
            await assert_refused_for_now(house, PLAIN)
            assert (await house.http.get(f"/api/v1/items/{PLAIN}")).status_code == 503
            body = {"id": PLAIN, "name": "Once more"}
            await assert_being_rebuilt(lambda: house.http.post("/api/v1/items", json=body), "to a seller")
            assert not await house.redis.exists(item_key(PLAIN))

        await lost()
        code, told = await house.recover("--item", neighbour)
        assert (code, "Redis has item" in told) == (3, True), told
        # What the neighbour's bidders are told now is nowhere but in the outbox.
        await house.stack.stop_process("nats")
        raised = await house.accepted(neighbour, "bob", "two", max_amount=80)
        assert (await house.accepted("new", "eve", "one", amount=1))["seq"] == 1, "that it is new, the outbox can tell"
        await house.stack.start_process("nats")
        code, told = await house.recover("--item", PLAIN)
        assert code == 0, told
        assert (await house.bid(PLAIN, "ann", "bid-3", amount=3)).json()["seq"] == 3
        assert (await house.accepted(PLAIN, "eve", "new", amount=50))["event_id"] == f"{PLAIN}:{RENEWED}:4"
        assert (await house.bid(neighbour, "bob", "two", max_amount=80)).json() == raised
        assert (await house.accepted(neighbour, "eve", "rival", amount=75))["is_highest"] is False
        await house.all_archived()

        # Known by the archive alone.
        client = await nats.connect(house.stack.urls.nats_url)
        await client.jetstream().purge_stream(names.STREAM)
        await client.close()
        await lost()
        # Known by the outbox alone, unpublished; and published there while the stream is away.
        await house.stack.stop_process("postgres")
        await house.accepted("new", "eve", "two", amount=2)
        await house.all_published()
        await house.stack.stop_process("nats")
        await house.accepted(neighbour, "eve", "three", amount=90)
        for item in ("new", neighbour):
            await house.redis.delete(item_key(item))
            await house.bid(item, "eve", "four", amount=100)
            await assert_refused_for_now(house, item)
        unknown = await house.bid("never-there", "eve", "one", amount=1)
        assert (unknown.status_code, unknown.json()["code"]) == (503, "UNAVAILABLE"), "the archive may know it"
        chosen = await house.http.post("/api/v1/items", json={"id": "never-there", "name": "A vase"})
        assert (chosen.status_code, chosen.json()["code"]) == (503, "UNAVAILABLE"), "the same"
        assert (await house.http.post("/api/v1/items", json={"name": "A vase"})).status_code == 201, "its id is new"


async def test_where_the_catalogue_is_closed_a_lost_item_is_no_stranger(start_stack: StackFactory) -> None:
    async with house_of(await start_stack(services=(API_GATEWAY,), env={"OPEN_CATALOGUE": "false"})) as house:
        await house.create(PLAIN)
        await house.accepted(PLAIN, "ann", "one", amount=5)
        await house.redis.delete(item_key(PLAIN))
        # The first bid finds out that the item, which this gateway knew, is gone.
        await house.bid(PLAIN, "eve", "two", amount=9)
        await assert_refused_for_now(house, PLAIN)
        for path in (
            f"/api/v1/items/{PLAIN}",
            f"/api/v1/items/{PLAIN}/bids",
            f"/api/v1/bids/by-key/one?item_id={PLAIN}",
        ):
            await assert_being_rebuilt(partial(house.http.get, path), path)
        assert (await house.bid("stranger", "eve", "three", amount=9)).status_code == 404
        # Where nobody can tell, it may be a closed item, which the archive alone has.
        await house.stack.stop_process("postgres")
        answer = await house.bid("stranger", "eve", "three", amount=9)
        assert (answer.status_code, answer.json()["code"]) == (503, "UNAVAILABLE")


async def test_a_complete_copy_of_redis_is_not_used_after_a_recovery_has_begun(
    start_stack: StackFactory, tmp_path: Path
) -> None:
    """The new epochs are written down, so the archive takes nothing of the former ones any more, whoever gave up."""
    async with house_of(await start_stack(services=(API_GATEWAY, ARCHIVAL_WORKER))) as house:
        await house.accepted(PLAIN, "ann", "one", amount=1)
        await house.all_archived()
        await house.stack.stop_process("redis")
        shutil.copytree(house.stack.data_dir / "redis", tmp_path / "redis")
        await house.stack.start_process("redis")
        await house.lose_redis()
        code, output = await house.recover(crash_at="recover.begun:1")
        assert code != 0, output
        await put_back(house, tmp_path / "redis")
        await assert_refused_for_now(house, PLAIN)
        code, output = await house.recover()
        assert code == 0, output
        assert (await house.accepted(PLAIN, "bob", "two", amount=2))["seq"] == 2
        await house.all_archived()
        assert await house.query("SELECT * FROM dead_letters") == []


@pytest.mark.timeout(300)
async def test_a_shard_that_went_back_to_its_beginning_is_opened_by_a_recovery(start_stack: StackFactory) -> None:
    """Its first bids were neither published nor archived when a replica was promoted that lacks them. Who had seen them
    closes the shard, and neither the stream nor the archive knows anything of it."""
    async with house_of(await start_stack(services=(API_GATEWAY, ARCHIVAL_WORKER))) as house:
        await eventually(house.is_ready)
        await house.stack.stop_process("nats")
        await house.accepted(PLAIN, "ann", "one", amount=1)
        shard = names.shard_of(PLAIN)
        kept = {cursors_key(shard), lease_key(shard)}
        keys = [key.decode() async for key in house.redis.scan_iter(f"{{{shard}}}:*")]
        await house.redis.delete(*(key for key in keys if key not in kept))
        await cast(Any, house.redis.hset(cursors_key(shard), "next", "0"))

        async def is_closed() -> bool:
            return bool(await cast(Any, house.redis.hexists(cursors_key(shard), "stale")))

        await eventually(is_closed, seconds=40)
        await house.stack.start_process("nats")
        await assert_refused_for_now(house, PLAIN)

        async def is_told() -> bool:
            told = (await house.http.get("/ready")).json()["degraded"].get("shards", "")
            return str(told) == "1 of 64 shards were lost and must be rebuilt; 1 of them because Redis is an older copy"

        await eventually(is_told, seconds=30)
        await asyncio.sleep(5)
        assert await house.is_degraded(), "and it stays so: nobody opens it but a recovery"
        assert await is_told()
        code, output = await house.recover()
        assert code == 0, output
        await eventually(house.is_ready)
        # The gateway remembers the item, and nobody else does.
        again = await house.bid(PLAIN, "bob", "two", amount=2)
        assert (again.status_code, again.json()["code"]) == (503, "UNAVAILABLE"), again.text
        assert (await house.accepted(PLAIN, "bob", "two", amount=2))["event_id"] == f"{PLAIN}:{RENEWED}:1"
        assert not await house.redis.exists(lost_key(shard))


async def pages_read(house: House) -> int:
    """How many pages of outboxes were read since Redis was started."""
    stats = await cast(Any, house.redis.info("commandstats"))
    return sum(int(stats.get(f"cmdstat_{command}", {"calls": 0})["calls"]) for command in ("xrange", "xrevrange"))


@pytest.mark.parametrize("open_catalogue", ["true", "false"])
async def test_who_asks_for_random_ids_makes_nobody_read_a_long_outbox(
    start_stack: StackFactory, open_catalogue: str
) -> None:
    """While NATS is away an outbox is long, and anybody may ask for what never was, as a reader, bidder or seller."""
    stack = await start_stack(services=(API_GATEWAY,), env={"OPEN_CATALOGUE": open_catalogue})
    async with house_of(stack) as house:
        await eventually(house.is_ready)
        await house.stack.stop_process("nats")
        await house.create(PLAIN)
        shard = names.shard_of(PLAIN)
        pipeline = house.redis.pipeline(transaction=False)
        for n in range(2, 20_000):
            pipeline.xadd(outbox_key(shard), {"item": "other", "events": "[]"}, id=f"{n}-0")
        await pipeline.execute()
        await cast(Any, house.redis.hset(cursors_key(shard), "next", "20000"))
        before = await pages_read(house)
        strangers = [f"x{n}" for n in range(20_000) if names.shard_of(f"x{n}") == shard][:30]
        for item in strangers[:10]:
            await house.http.get(f"/api/v1/items/{item}")
            await house.bid(item, "eve", "one", amount=1)
        created = [await house.http.post("/api/v1/items", json={"id": item, "name": "A"}) for item in strangers[10:20]]
        assert {answer.status_code for answer in created} == {201}
        # One that is lost is found all the same, though its only event is the oldest of them.
        await house.redis.delete(item_key(PLAIN))
        await assert_being_rebuilt(lambda: house.http.get(f"/api/v1/items/{PLAIN}"))
        # Where the archive cannot tell either, whether the outbox has it is looked for in its newest part.
        await house.stack.stop_process("postgres")
        for item in strangers[20:]:
            assert (await house.http.post("/api/v1/items", json={"id": item, "name": "A"})).status_code == 503
        await house.redis.delete(item_key(strangers[10]))
        await assert_being_rebuilt(lambda: house.http.get(f"/api/v1/items/{strangers[10]}"))
        assert await pages_read(house) - before <= 15
