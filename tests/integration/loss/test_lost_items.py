"""A single item that Redis has lost, and a wiped Redis: one code for bidders, operators, readers and viewers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, cast

import httpx2 as httpx
import nats
import pytest
from websockets.asyncio.client import ClientConnection, connect

from infrastructure.local.services import ALL_SERVICES
from shared import names
from shared.messages import encode_event, frame_batch
from shared.redis_layout.keys import cursors_key, item_key, lost_key, recent_key
from tests.acceptance.test_one_bid_end_to_end import feed_url
from tests.integration.feed.feed_world import greeted, receive, receive_type
from tests.integration.loss.recover_world import RENEWED, House, assert_being_rebuilt, house_of
from tests.stack import StackFactory
from tests.unit.archival_worker.events import created
from tests.waiting import eventually

pytestmark = pytest.mark.integration

LOT, OTHER = "lot-1", "lot-2"


async def assert_rebuilt(ask: Callable[[], Awaitable[httpx.Response]], what: str) -> None:
    answer = await assert_being_rebuilt(ask, what)
    assert "retry-after" in answer.headers, answer.text


async def assert_everybody_is_told(house: House, item_id: str) -> None:
    """Everybody who asks for the item, or wants something done to it, is told that it is lost."""
    path, reason = f"/api/v1/items/{item_id}", {"reason": "a test"}
    asked: dict[str, Callable[[], Awaitable[httpx.Response]]] = {
        "bid": lambda: house.bid(item_id, "eve", "meanwhile", amount=1_000),
        "read": lambda: house.http.get(path),
        "history": lambda: house.http.get(f"{path}/bids"),
        "by key": lambda: house.http.get(f"/api/v1/bids/by-key/one?item_id={item_id}"),
        "pause": lambda: house.http.post(f"{path}/pause", json=reason),
        "resume": lambda: house.http.post(f"{path}/resume", json=reason),
        "cancel": lambda: house.http.post(f"{path}/cancel", json=reason),
        "void": lambda: house.http.post(f"{path}/bids/{item_id}-1/void", json=reason),
    }
    for what, ask in asked.items():
        await assert_rebuilt(ask, what)


async def noted(house: House, item_id: str) -> None:
    """Return when the gateway has noted that the item is lost. Where the archive is too slow it tells so all the same,
    of an item that it has served, and asks again."""

    async def is_noted() -> bool:
        await house.http.get(f"/api/v1/items/{item_id}")
        return bool(await cast(Any, house.redis.sismember(lost_key(names.shard_of(item_id)), item_id)))

    await eventually(is_noted, f"a note that {item_id} is lost", seconds=30)


async def created_again(house: House, item_id: str) -> httpx.Response:
    """What a seller is told who wants to open an item of this id."""
    return await house.http.post("/api/v1/items", json={"id": item_id, "name": "Once more"})


async def error_of(viewer: ClientConnection) -> dict[str, Any]:
    frame = await greeted(viewer)
    assert frame["type"] == "error", frame
    return frame


async def metric(house: House, name: str) -> float:
    text = (await house.http.get("/metrics")).text
    return next(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(f"{name} "))


@pytest.mark.timeout(300)
@pytest.mark.parametrize("open_catalogue", ["true", "false"])
async def test_one_code_for_an_item_that_is_lost_alone(start_stack: StackFactory, open_catalogue: str) -> None:
    stack = await start_stack(services=ALL_SERVICES, env={"OPEN_CATALOGUE": open_catalogue})
    async with house_of(stack) as house, connect(f"{feed_url(stack)}/ws") as many:
        for item in (LOT, OTHER):
            await house.create(item)
            await house.accepted(item, "ann", f"{item}-1", amount=1)
        await house.all_archived()
        await house.redis.delete(item_key(LOT))
        # The very first bid, by a gateway that remembers the item's currency.
        await assert_rebuilt(lambda: house.bid(LOT, "eve", "first", amount=50), "to the first bid")
        await noted(house, LOT)
        await assert_everybody_is_told(house, LOT)
        await assert_rebuilt(lambda: created_again(house, LOT), "to a seller")
        assert not await house.redis.exists(item_key(LOT))

        assert (await receive(many))["type"] == "connected"
        await many.send(json.dumps({"op": "subscribe", "items": [LOT, OTHER]}))
        frames = {frame["item_id"]: frame for frame in (await receive(many), await receive(many))}
        assert (frames[LOT]["type"], frames[LOT]["code"]) == ("error", "BEING_REBUILT")
        assert frames[OTHER]["type"] == "snapshot"

        page = await house.page()
        assert ([item["id"] for item in page["items"]], page["being_rebuilt"]) == ([OTHER], [LOT])

        async def is_told() -> bool:
            ready = await house.http.get("/ready")
            return ready.status_code == 200 and "1 items were lost" in ready.json()["degraded"].get("items", "")

        await eventually(is_told)
        assert await metric(house, "bidding_items_lost") == 1
        assert (await house.accepted(OTHER, "bob", "two", amount=2))["seq"] == 2, "its neighbours live"

        async with (
            connect(f"{feed_url(stack)}/ws/items/{LOT}") as single,
            httpx.AsyncClient(timeout=20) as client,
            client.stream("GET", f"{stack.urls.broadcast_url}/sse/items/{LOT}") as stream,
        ):
            error = await error_of(single)
            assert (error["code"], error["item_id"]) == ("BEING_REBUILT", LOT)
            assert stream.status_code == 200
            lines = stream.aiter_lines()
            assert [line async for line in _until(lines, "BEING_REBUILT")]

            code, output = await house.recover("--item", LOT)
            assert code == 0, output
            for viewer in (single, many):
                snapshot = await receive_type(viewer, "snapshot")
                if snapshot["item_id"] != LOT:
                    snapshot = await receive_type(viewer, "snapshot")
                assert (snapshot["item_id"], snapshot["epoch"], snapshot["seq"]) == (LOT, RENEWED, 1)
            assert [line async for line in _until(lines, '"type":"snapshot"')]

        async def is_ready() -> bool:
            return bool((await house.http.get("/ready")).json()["degraded"] == {})

        await eventually(is_ready)
        assert await metric(house, "bidding_items_lost") == 0
        page = await house.page()
        assert ({item["id"] for item in page["items"]}, page["being_rebuilt"]) == ({LOT, OTHER}, [])
        assert (await house.accepted(LOT, "eve", "again", amount=50))["event_id"] == f"{LOT}:{RENEWED}:2"


async def _until(lines: Any, text: str) -> Any:
    async with asyncio.timeout(60):
        async for line in lines:
            if text in line:
                yield line
                return


async def test_one_code_for_a_wiped_redis(start_stack: StackFactory) -> None:
    stack = await start_stack(services=ALL_SERVICES, env={"OPEN_CATALOGUE": "false"})
    async with house_of(stack) as house:
        for item in (LOT, OTHER):
            await house.create(item)
            await house.accepted(item, "ann", f"{item}-1", amount=1)
        await house.all_archived()
        async with connect(f"{feed_url(stack)}/ws/items/{OTHER}") as before:
            assert (await greeted(before))["type"] == "snapshot"
            await house.lose_redis()
            for item in (LOT, OTHER):
                await assert_everybody_is_told(house, item)
                await assert_rebuilt(partial(created_again, house, item), "to a seller")
            await assert_rebuilt(lambda: house.http.get("/api/v1/items"), "to a reader of the list")
            async with connect(f"{feed_url(stack)}/ws/items/{LOT}") as viewer:
                assert (await error_of(viewer))["code"] == "BEING_REBUILT"
                code, output = await house.recover()
                assert code == 0, output
                assert (await receive_type(viewer, "snapshot"))["epoch"] == RENEWED
            again = await receive_type(before, "snapshot")
            assert (again["epoch"], again["seq"], again["recovered"]) == (RENEWED, 1, False), "told by itself"
        await eventually(house.is_ready)
        assert len((await house.page())["items"]) == 2


async def test_an_item_that_came_too_late_for_a_rebuilding_is_no_lost_item(start_stack: StackFactory) -> None:
    """Its messages are in the stream for days, and in no archive: nothing could ever bring it back."""
    stack = await start_stack(services=ALL_SERVICES, env={"OPEN_CATALOGUE": "false"})
    async with house_of(stack) as house:
        await house.create(LOT)
        await house.all_archived()
        await house.lose_redis()
        code, output = await house.recover()
        assert code == 0, output
        await eventually(house.is_ready)
        shard = names.shard_of(LOT)
        ghost = next(f"x{n}" for n in range(10_000) if names.shard_of(f"x{n}") == shard)
        # Redis has given out what is published here: otherwise the next comparison closes the shard.
        await house.redis.hset(cursors_key(shard), "next", "9")
        client = await nats.connect(stack.urls.nats_url)
        for item, epoch in ((ghost, 1), (LOT, RENEWED)):
            await client.jetstream().publish(
                names.subject_of(item),
                frame_batch(shard, epoch, 9, item, b"[%b]" % encode_event(created(item, epoch=epoch))),
                headers={"Nats-Msg-Id": names.message_id(shard, epoch, 9)},
            )
        await client.close()
        assert (await house.http.get(f"/api/v1/items/{ghost}")).status_code == 404
        assert (await house.bid(ghost, "eve", "first", amount=50)).status_code == 404
        async with connect(f"{feed_url(stack)}/ws/items/{ghost}") as viewer:
            assert (await error_of(viewer))["code"] == "ITEM_NOT_FOUND"
        code, output = await house.recover("--item", ghost)
        assert (code != 0, "knows an item" in output) == (True, True), output
        assert await house.redis.scard(lost_key(shard)) == 0
        # One of the present epoch is known by the stream alone.
        await house.redis.delete(item_key(LOT))
        await assert_rebuilt(lambda: house.http.get(f"/api/v1/items/{LOT}"), "to a reader")
        await house.create(ghost)


async def test_who_is_unknown_is_no_lost_item(start_stack: StackFactory) -> None:
    """And a flood of strangers does not hide one that is lost."""
    stack = await start_stack(services=ALL_SERVICES, env={"OPEN_CATALOGUE": "false"})
    async with house_of(stack) as house:
        await house.create(LOT)
        await house.all_archived()
        await house.redis.delete(item_key(LOT))
        await assert_rebuilt(lambda: house.bid(LOT, "eve", "first", amount=50), "to the first bid")
        await noted(house, LOT)
        # Known by nobody but the archive from here on.
        client = await nats.connect(stack.urls.nats_url)
        await client.jetstream().purge_stream(names.STREAM)
        await client.close()
        await house.redis.delete(recent_key(LOT))
        strangers = [house.http.get(f"/api/v1/items/stranger-{number}") for number in range(200)]
        mixed = [house.http.get(f"/api/v1/items/{LOT}") for _ in range(20)]
        results = await asyncio.gather(*strangers, *mixed)
        # A request that waits too long for its turn is refused with Retry-After.
        assert {answer.status_code for answer in results[:200]} <= {404, 503}
        assert {(answer.status_code, answer.json()["code"]) for answer in results[200:]} == {(503, "BEING_REBUILT")}

        async def no_such_item(path: str) -> bool:
            return (await house.http.get(path)).status_code == 404

        for answer in results[:200]:
            if answer.status_code == 503:
                assert answer.json()["code"] == "UNAVAILABLE", answer.text
                await eventually(partial(no_such_item, answer.url.path), seconds=30)
        for path, frame_type in ((f"/ws/items/{LOT}", "BEING_REBUILT"), ("/ws/items/stranger", "ITEM_NOT_FOUND")):
            async with connect(f"{feed_url(stack)}{path}") as viewer:
                assert (await error_of(viewer))["code"] == frame_type
        answer = await house.http.post("/api/v1/items/stranger/pause", json={"reason": "a test"})
        assert (answer.status_code, answer.json()["code"]) == (404, "ITEM_NOT_FOUND")


@pytest.mark.timeout(300)
async def test_a_closed_shard_tells_nothing_of_the_older_copy_that_it_has(start_stack: StackFactory) -> None:
    """Redis has the item, as it once was; what it lacks is acknowledged, and comes back with the rebuilding."""
    stack = await start_stack(services=ALL_SERVICES)
    async with house_of(stack) as house:
        for item in (LOT, OTHER):
            await house.create(item)
            await house.accepted(item, "ann", "one", amount=1)
        await house.all_archived()
        cursors: Any = cursors_key(names.shard_of(LOT))
        await house.redis.hset(cursors, "stale", "1")
        await house.redis.hdel(cursors, "epoch")
        await assert_everybody_is_told(house, LOT)
        assert (await created_again(house, LOT)).status_code == 409, "that is true of the copy as well"
        await assert_rebuilt(lambda: house.http.get(f"/api/v1/bids/by-key/never?item_id={LOT}"), "by another key")
        page = await house.page()
        assert ([item["id"] for item in page["items"]], page["being_rebuilt"]) == ([OTHER], [LOT])
        async with connect(f"{feed_url(stack)}/ws/items/{LOT}") as viewer:
            assert (await error_of(viewer))["code"] == "BEING_REBUILT"
