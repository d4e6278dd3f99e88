"""The live feed has no gap: between snapshot and events, after lost messages, reconnections and failed servers."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import httpx2 as httpx
import pytest
import pytest_asyncio
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from infrastructure.local.servers.ports import free_ports
from infrastructure.local.stack import Stack
from tests.integration.feed.feed_world import (
    FEED,
    AuctionHouse,
    Gate,
    another_feed,
    greeted,
    http_get,
    metric,
    receive,
    receive_many,
    seqs,
    until_metric,
    ws_url,
)
from tests.tcp import Way
from tests.waiting import eventually

pytestmark = pytest.mark.integration


@pytest_asyncio.fixture(autouse=True)
async def servers_are_back(feed_stack: Stack) -> AsyncIterator[None]:
    """A test that fails while a server is away must not leave the others without it."""
    yield
    for name in ("redis", "nats"):
        if feed_stack.pid(name) is None:
            await feed_stack.start_process(name)


@asynccontextmanager
async def feed_behind_a_gate(stack: Stack, name: str) -> AsyncIterator[tuple[Gate, int]]:
    async with (
        Gate(stack.ports.redis).serve() as gate,
        another_feed(
            stack,
            name,
            REDIS_URL=f"redis://127.0.0.1:{gate.port}/0",
            REDIS_TIMEOUT_MS="60000",
            OPEN_CATALOGUE="true",
        ) as port,
    ):
        yield gate, port


async def test_who_comes_back_with_a_version_that_never_was_takes_nothing_from_the_others(
    feed_stack: Stack, house: AuctionHouse
) -> None:
    """Many viewers wait for the same read of Redis, as after a restart."""
    item = await house.open()
    await house.bid(item, 100, 200, 300)
    async with feed_behind_a_gate(feed_stack, "feed-nonsense") as (gate, port):
        gate.hold("requests")
        async with AsyncExitStack() as viewers:
            ways = ("", "?since=0:500", "?since=1:1", "?since=9:9")
            url = ws_url(feed_stack, f"/ws/items/{item}", port)
            came = [await viewers.enter_async_context(connect(url + since)) for since in ways]
            for viewer in came:
                assert (await receive(viewer))["type"] == "connected"
            await gate.something_held("requests")
            gate.release("requests")
            answers = [await receive(viewer) for viewer in came[:3]]
            assert [answer.get("recovered") for answer in answers] == [None, False, True]
            assert seqs(await receive_many(came[2], 2)) == [2, 3]


@pytest.mark.parametrize("held", ["requests", "answers"])
async def test_a_bid_between_subscribing_and_the_snapshot_is_neither_lost_nor_doubled(
    feed_stack: Stack, house: AuctionHouse, held: Way
) -> None:
    """If the request is held, the snapshot has the bid already; if the answer is held, it does not."""
    item = await house.open()
    await house.bid(item, 100)
    async with feed_behind_a_gate(feed_stack, f"feed-{held}") as (gate, port):
        gate.hold(held)
        async with connect(ws_url(feed_stack, f"/ws/items/{item}", port)) as viewer:
            assert (await receive(viewer))["type"] == "connected"
            await gate.something_held(held)
            before = await metric(feed_stack, "feed_events_watched_total", port)
            await house.bid(item, 200)
            await until_metric(feed_stack, "feed_events_watched_total", before + 1, port)
            gate.release(held)
            snapshot = await receive(viewer)
            assert (snapshot["type"], snapshot["seq"], snapshot["current_bid"]) == ("snapshot", 2, 2.0)
            await house.bid(item, 300)
            after = await receive(viewer)
            assert (after["type"], after["seq"]) == ("bid", 3)


async def test_a_lost_message_is_replayed_from_redis(feed_stack: Stack, house: AuctionHouse) -> None:
    item = await house.open()
    async with connect(ws_url(feed_stack, f"/ws/items/{item}")) as viewer:
        await greeted(viewer)
        late = await house.decide(item, 100, 200)
        await house.bid(item, 300)
        assert [(frame["type"], frame["seq"]) for frame in await receive_many(viewer, 3)] == [
            ("bid", 1),
            ("bid", 2),
            ("bid", 3),
        ]
        # The relay was only slow: its message comes now, and once more with another id.
        await house.publish(late)
        await house.publish_raw(item, b'{"not": "an event"}')
        await house.bid(item, 400)
        assert (await receive(viewer))["seq"] == 4


async def test_a_message_that_cannot_be_read_does_not_cost_a_bid(feed_stack: Stack, house: AuctionHouse) -> None:
    item = await house.open()
    async with connect(ws_url(feed_stack, f"/ws/items/{item}")) as viewer:
        await greeted(viewer)
        await house.decide(item, 100)
        await house.publish_raw(item, b"\xff")
        assert (await receive(viewer))["seq"] == 1


class TestSince:
    async def test_exactly_what_was_missed(self, feed_stack: Stack, house: AuctionHouse) -> None:
        item = await house.open()
        await house.bid(item, 100, 200, 300)
        async with connect(ws_url(feed_stack, f"/ws/items/{item}?since=1:1")) as viewer:
            resumed = await greeted(viewer)
            assert resumed.items() >= {"type": "resumed", "recovered": True, "replayed": 2, "seq": 3}.items()
            assert [(frame["type"], frame["seq"]) for frame in await receive_many(viewer, 2)] == [
                ("bid", 2),
                ("bid", 3),
            ]
            await house.bid(item, 400)
            assert (await receive(viewer))["seq"] == 4

    async def test_nothing_was_missed(self, feed_stack: Stack, house: AuctionHouse) -> None:
        item = await house.open()
        async with connect(ws_url(feed_stack, f"/ws/items/{item}?since=1:0")) as viewer:
            assert (await greeted(viewer))["replayed"] == 0
            await house.bid(item, 100)
            assert (await receive(viewer))["seq"] == 1

    @pytest.mark.parametrize("since", ["1:1", "7:3", "1:999999"])
    async def test_what_is_gone_is_a_snapshot_that_says_so(
        self, feed_stack: Stack, house: AuctionHouse, since: str
    ) -> None:
        item = await house.open()
        await house.bid(item, 100, 200, 300, 400)
        await house.shorten_recent(item, 2)
        async with connect(ws_url(feed_stack, f"/ws/items/{item}?since={since}")) as viewer:
            snapshot = await greeted(viewer)
            assert (snapshot["type"], snapshot["seq"], snapshot["recovered"]) == ("snapshot", 4, False)

    async def test_viewers_of_a_broadcaster_that_was_killed_miss_nothing(
        self, feed_stack: Stack, house: AuctionHouse
    ) -> None:
        item = await house.open()
        async with another_feed(feed_stack, "feed-killed") as port:
            async with connect(ws_url(feed_stack, f"/ws/items/{item}", port)) as viewer:
                await greeted(viewer)
                await house.bid(item, 100)
                seen = await receive(viewer)
                feed_stack.kill("feed-killed", signal.SIGKILL)
                with pytest.raises(ConnectionClosed):
                    await receive(viewer)
            await house.bid(item, 200, 300)
            assert await feed_stack.wait_ended("feed-killed")
            await feed_stack.start_process("feed-killed")
            since = f"{seen['epoch']}:{seen['seq']}"
            async with connect(ws_url(feed_stack, f"/ws/items/{item}?since={since}", port)) as viewer:
                assert (await greeted(viewer))["recovered"] is True
                assert seqs(await receive_many(viewer, 2)) == [2, 3]


# ------------------------------------------------------------------------------------------ when servers are away


async def test_viewers_catch_up_after_nats_was_killed(feed_stack: Stack) -> None:
    async with AuctionHouse.at(feed_stack.urls.redis_url, feed_stack.urls.nats_url) as house:
        item = await house.open()
        viewer = await connect(ws_url(feed_stack, f"/ws/items/{item}"))
        await greeted(viewer)
        await house.bid(item, 100)
        assert (await receive(viewer))["seq"] == 1
        consumers = await metric(feed_stack, "feed_consumers_created_total")
        feed_stack.kill("nats", signal.SIGKILL)
        assert await feed_stack.wait_ended("nats")
        entries = [await house.decide(item, amount) for amount in (200, 300)]

        async def is_degraded() -> bool:
            return bool((await http_get(feed_stack, "/ready")).json()["degraded"] == ["nats"])

        await eventually(is_degraded, seconds=60)
        assert (await http_get(feed_stack, "/ready")).status_code == 200
        stale = await receive(viewer)
        assert stale == {"type": "stale", "item_id": item, "stale": True, "epoch": 1, "seq": 1}
        # A new viewer gets the state of Redis and is told that it may be out of date; so is everybody else.
        async with connect(ws_url(feed_stack, f"/ws/items/{item}")) as newcomer:
            assert (await greeted(newcomer))["seq"] == 3
            assert (await receive(newcomer)).items() >= {"type": "stale", "stale": True, "seq": 3}.items()
        # As one frame where all of this took less than a slot of the item's frames.
        told = [await receive(viewer)]
        while told[-1]["seq"] < 3:
            told.append(await receive(viewer))
        assert sum(frame.get("bids_since_last", 1) for frame in told) == 2
        # Decided while events do not flow: found when the stream is back, before the relay is.
        entries.append(await house.decide(item, 400))
        await feed_stack.start_process("nats")
        await until_metric(feed_stack, "feed_consumers_created_total", consumers + 1)
        assert (await receive(viewer))["seq"] == 4
        assert await receive(viewer) == {**stale, "stale": False, "seq": 4}
    async with AuctionHouse.at(feed_stack.urls.redis_url, feed_stack.urls.nats_url) as house:
        for entry in entries:
            await house.publish(entry)
        await house.bid(item, 500)
        last = await receive(viewer)
        assert (last["seq"], last["amount"]) == (5, 5.0)
        await viewer.close()


async def test_viewers_catch_up_after_nats_stood_still(feed_stack: Stack, house: AuctionHouse) -> None:
    item = await house.open()
    async with (
        another_feed(feed_stack, "feed-still", FEED_HEARTBEAT_S="1") as port,
        connect(ws_url(feed_stack, f"/ws/items/{item}", port)) as viewer,
    ):
        await greeted(viewer)
        await until_metric(feed_stack, "feed_stream_up", 1, port)
        created = await metric(feed_stack, "feed_consumers_created_total", port)
        feed_stack.kill("nats", signal.SIGSTOP)
        try:
            await house.decide(item, 100)

            async def is_down() -> bool:
                return await metric(feed_stack, "feed_stream_up", port) == 0

            # Three missed heartbeats tell, before the client's own pings would, after more than 10 s.
            await eventually(is_down, seconds=9)
            assert (await receive(viewer)).items() >= {"type": "stale", "stale": True, "seq": 0}.items()
        finally:
            feed_stack.kill("nats", signal.SIGCONT)
        await until_metric(feed_stack, "feed_consumers_created_total", created + 1, port)
        # It is found in Redis, because nobody published it; only then is the item no longer stale.
        bid, fresh = await receive_many(viewer, 2)
        assert (bid["type"], bid["seq"]) == ("bid", 1)
        assert fresh.items() >= {"type": "stale", "stale": False, "seq": 1}.items()
        await house.bid(item, 200)
        assert (await receive(viewer))["seq"] == 2


async def test_a_consumer_that_is_deleted_is_replaced_and_viewers_are_told(
    feed_stack: Stack, house: AuctionHouse
) -> None:
    """NATS is up and nothing else fails: only the consumer is gone."""
    item = await house.open()
    others = await house.consumers()
    async with (
        another_feed(feed_stack, "feed-bereft", FEED_HEARTBEAT_S="1") as port,
        connect(ws_url(feed_stack, f"/ws/items/{item}", port)) as viewer,
    ):
        await greeted(viewer)
        await until_metric(feed_stack, "feed_stream_up", 1, port)
        created = await metric(feed_stack, "feed_consumers_created_total", port)
        # No event tells it: it is found when the item is loaded.
        await house.decide(item, 100)
        await house.delete_consumers(but=others)
        await until_metric(feed_stack, "feed_consumers_created_total", created + 1, port)
        frames = await receive_many(viewer, 3)
        assert [(frame["type"], frame.get("stale"), frame["seq"]) for frame in frames] == [
            ("stale", True, 0),
            ("bid", None, 1),
            ("stale", False, 1),
        ]
        await house.bid(item, 200)
        assert (await receive(viewer))["seq"] == 2


async def test_it_starts_without_servers_and_serves_when_they_come(feed_stack: Stack, house: AuctionHouse) -> None:
    item = await house.open()
    await house.bid(item, 100)
    async with Gate(feed_stack.ports.redis).serve() as gate:
        gate.hold("answers")
        [port] = free_ports(1)
        env = {"BROADCAST_PORT": str(port), "REDIS_URL": f"redis://127.0.0.1:{gate.port}/0", "REDIS_TIMEOUT_MS": "200"}
        starting = asyncio.create_task(feed_stack.add_service("feed-early", FEED, port, env))
        try:

            async def answers() -> bool:
                try:
                    return (await http_get(feed_stack, "/health", port)).status_code == 200
                except httpx.TransportError:
                    return False

            await eventually(answers, seconds=60)
            ready = await http_get(feed_stack, "/ready", port)
            assert (ready.status_code, ready.json()["redis"]) == (503, "down")
            async with connect(ws_url(feed_stack, f"/ws/items/{item}", port)) as viewer:
                assert (await receive(viewer))["type"] == "connected"
                await until_metric(feed_stack, "feed_loads_failed_total", 1, port)
                gate.release("answers")
                snapshot = await receive(viewer)
                assert (snapshot["type"], snapshot["seq"]) == ("snapshot", 1)
            await starting
        finally:
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)
            await feed_stack.stop_process("feed-early")
