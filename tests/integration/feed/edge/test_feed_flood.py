"""The work that one viewer can cause is bounded, whatever it sends and however often; the others are served."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Final

import httpx2 as httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from broadcast_service.core.close_codes import TOO_MANY_OPERATIONS
from broadcast_service.core.quota import REFUSED_MAX, operations_rate
from infrastructure.local.stack import Stack
from shared.feed_client.client import FeedClient
from shared.feed_client.updates import ConnectionState
from shared.http.addresses import ATTEMPTS_BURST_MIN
from tests.integration.feed.feed_world import (
    PATIENCE_S,
    AuctionHouse,
    Json,
    another_feed,
    closed_with,
    greeted,
    metric,
    raw_upgrade,
    receive_type,
    ws_url,
)
from tests.integration.feed.reader import Reader

pytestmark = pytest.mark.integration

FLOOD: Final = 300
ITEMS_MAX: Final = 10
SLOW: Final = {"FEED_OPERATIONS_RATE_MAX": "1", "FEED_ITEMS_PER_CONNECTION_MAX": str(ITEMS_MAX)}
"""What comes back while a test runs is next to nothing beside the burst, also on a machine that is slow."""

BURST: Final = int(operations_rate(1, ITEMS_MAX).burst)


async def frames_of(viewer: ClientConnection) -> list[Json]:
    """All frames until the service closes the connection."""
    frames: list[Json] = []
    async with asyncio.timeout(PATIENCE_S):
        with contextlib.suppress(ConnectionClosed):
            while True:
                frames.append(json.loads(await viewer.recv()))
    assert viewer.close_code == TOO_MANY_OPERATIONS.code
    return frames


async def say_again_and_again(viewer: ClientConnection, operation: Json) -> None:
    text = json.dumps(operation)
    with contextlib.suppress(ConnectionClosed):
        for _ in range(FLOOD):
            await viewer.send(text)
            # Otherwise no frames would be read meanwhile.
            await asyncio.sleep(0)


async def test_who_asks_without_end_is_refused_then_closed_and_nobody_else_is(
    feed_stack: Stack, house: AuctionHouse
) -> None:
    """Each item causes a read of Redis: none of them exists, so the next request causes one too."""
    item = await house.open()
    async with (
        another_feed(feed_stack, "feed-flooded", **SLOW) as port,
        connect(ws_url(feed_stack, f"/ws/items/{item}", port)) as viewer,
        connect(ws_url(feed_stack, "/ws", port)) as hostile,
    ):
        await greeted(viewer)
        loads = await metric(feed_stack, "feed_loads_total", port)
        unknown = {"op": "subscribe", "items": [f"no-{number}" for number in range(ITEMS_MAX)]}
        # The first is answered before the flood: the archive may not have answered the rest when the end comes.
        await hostile.send(json.dumps(unknown))
        frames: list[Json] = []
        async with asyncio.timeout(PATIENCE_S):
            while sum(frame.get("code") == "ITEM_NOT_FOUND" for frame in frames) < ITEMS_MAX:
                frames.append(json.loads(await hostile.recv()))
        asking = asyncio.create_task(say_again_and_again(hostile, unknown))
        frames += await frames_of(hostile)
        await asking
        refused = [frame for frame in frames if frame.get("code") == "TOO_MANY_OPERATIONS"]
        missing = [frame for frame in frames if frame.get("code") == "ITEM_NOT_FOUND"]
        assert REFUSED_MAX <= len(refused) < FLOOD
        assert ITEMS_MAX <= len(missing) < 2 * BURST
        assert await metric(feed_stack, "feed_loads_total", port) - loads < 2 * BURST
        assert await metric(feed_stack, "feed_operations_refused_total", port) >= REFUSED_MAX
        assert await metric(feed_stack, 'feed_connections_closed_total{code="too_many_operations"}', port) == 1
        await house.bid(item, 500)
        assert (await receive_type(viewer, "bid"))["current_bid"] == 5


async def test_what_costs_more_counts_more(feed_stack: Stack, house: AuctionHouse) -> None:
    """Missed events are read and encoded for each request, and a few messages may have many requests."""
    item = await house.open("v")
    await house.bid(item, *(100 * number for number in range(1, 41)))
    async with (
        another_feed(feed_stack, "feed-replaying", **SLOW) as port,
        connect(ws_url(feed_stack, "/ws", port)) as viewer,
    ):
        ask = {"op": "subscribe", "items": [item] * 20, "since": {item: "1:0"}}
        # The first is answered before the flood: on a busy machine nothing of the flood is, before the end.
        await viewer.send(json.dumps(ask))
        frames: list[Json] = []
        async with asyncio.timeout(PATIENCE_S):
            while not frames or frames[-1].get("replayed") != 40:
                frames.append(json.loads(await viewer.recv()))
        asking = asyncio.create_task(say_again_and_again(viewer, ask))
        frames += await frames_of(viewer)
        await asking
        assert 1 <= sum(frame.get("replayed") == 40 for frame in frames) <= 2 * BURST / 5


async def test_a_message_without_an_end_ends_the_connection(feed_stack: Stack) -> None:
    """Fragments are kept until the last one comes, and empty ones never reach the size limit."""
    first, another = b"\x01\x80\0\0\0\0", b"\x00\x80\0\0\0\0"
    async with another_feed(feed_stack, "feed-endless", **SLOW) as port:
        reader, writer = await raw_upgrade(port, "/ws")
        writer.write(first + another * FLOOD)
        async with asyncio.timeout(PATIENCE_S):
            await reader.readuntil(TOO_MANY_OPERATIONS.code.to_bytes(2) + TOO_MANY_OPERATIONS.reason.encode())
        writer.close()


async def test_pings_are_counted_too(feed_stack: Stack) -> None:
    async with (
        another_feed(feed_stack, "feed-pinged", **SLOW) as port,
        connect(ws_url(feed_stack, "/ws", port), ping_interval=None) as viewer,
    ):
        with contextlib.suppress(ConnectionClosed):
            for number in range(FLOOD):
                await viewer.ping(str(number))
                await asyncio.sleep(0)
        assert await closed_with(viewer) == TOO_MANY_OPERATIONS.code


async def test_whoever_comes_back_with_all_it_may_follow_is_served_at_once(feed_stack: Stack) -> None:
    """200 items with ``since``, in many more messages than needed."""
    items = [f"no-{number}" for number in range(200)]
    async with (
        another_feed(feed_stack, "feed-returning", FEED_OPERATIONS_RATE_MAX="1", OPEN_CATALOGUE="true") as port,
        connect(ws_url(feed_stack, "/ws", port)) as viewer,
    ):
        for start in range(0, 200, 2):
            some = items[start : start + 2]
            await viewer.send(json.dumps({"op": "subscribe", "items": some, "since": dict.fromkeys(some, "0:-1")}))
        seen: set[str] = set()
        while len(seen) < 200:
            seen.add((await receive_type(viewer, "resumed"))["item_id"])
        assert await metric(feed_stack, "feed_operations_refused_total", port) == 0


async def test_the_client_comes_back_where_it_was_told_to_slow_down(feed_stack: Stack, house: AuctionHouse) -> None:
    item = await house.open()
    async with (
        another_feed(feed_stack, "feed-scolding", **SLOW) as port,
        Reader.of(FeedClient(f"ws://127.0.0.1:{port}", [item], chance=lambda: 0.0)) as reader,
    ):
        await reader.until_seq(item, 0)
        for _ in range(BURST + 1):
            await reader.feed.ask_standing(item)
        await reader.until(lambda: "TOO_MANY_OPERATIONS" in reader.refusals)
        await reader.until(lambda: reader.states.count(ConnectionState.LIVE) >= 2)
        await house.bid(item, 700)
        await reader.until(lambda: reader.of_item(item)[-1].kind == "bid")
        assert reader.feed.item(item)["current_bid"] == 7  # type: ignore[index]


# -------------------------------------------------------------------------------------------------- connections


async def test_who_asks_for_connections_again_and_again_has_to_wait(feed_stack: Stack) -> None:
    """Whatever the outcome of the attempts; another address is not affected."""
    env = {"FEED_ATTEMPTS_RATE_MAX": "1", "FEED_CONNECTIONS_PER_ADDRESS_MAX": str(ATTEMPTS_BURST_MIN)}
    one, other = {"X-Forwarded-For": "192.0.2.1"}, {"X-Forwarded-For": "192.0.2.2"}
    async with (
        another_feed(feed_stack, "feed-rattled", **env, FEED_TRUSTED_PROXIES="127.0.0.1") as port,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", headers=one, timeout=30) as client,
    ):
        answers: list[httpx.Response] = []
        while not answers or answers[-1].status_code != 429:
            answers.append(await client.get("/sse/items/none", params={"since": "nonsense"} if answers else {}))
        assert [answer.status_code for answer in answers[:-1]] == [404] + [422] * (len(answers) - 2)
        assert ATTEMPTS_BURST_MIN <= len(answers) - 1 < 2 * ATTEMPTS_BURST_MIN
        assert answers[-1].json()["code"] == "TOO_MANY_ATTEMPTS_FROM_ADDRESS"
        assert int(answers[-1].headers["retry-after"]) > 0
        url = ws_url(feed_stack, "/ws", port)
        # Meanwhile one attempt may be allowed again, but not all of these.
        attempts = [connect(url, additional_headers=one) for _ in range(20)]
        outcomes = await asyncio.gather(*attempts, return_exceptions=True)
        refused = [each.response.status_code for each in outcomes if isinstance(each, InvalidStatus)]
        assert set(refused) == {429}
        for viewer in outcomes:
            if isinstance(viewer, ClientConnection):
                await viewer.close()
        async with connect(url, additional_headers=other):
            pass
