"""The broadcaster as a process, with real Redis, NATS and WebSockets: what viewers see, whatever happens behind it."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager

import httpx
import psutil
import pytest
import pytest_asyncio
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from broadcast_service.close_codes import ITEM_NOT_FOUND, SERVICE_RESTART, SLOW_VIEWER
from infrastructure.local.ports import Ports, free_ports
from infrastructure.local.stack import Stack
from tests.integration.feed_world import (
    PATIENCE_S,
    AuctionHouse,
    Gate,
    Json,
    greeted,
    receive,
    receive_many,
    receive_until_seq,
    until,
)
from tests.stack import new_data_dir

pytestmark = pytest.mark.integration

FEED = "broadcast_service"


@pytest.fixture(scope="module")
def world(postgres_url: str) -> Iterator[Stack]:
    """Redis and NATS of this module alone, so that nobody else publishes its events, and a broadcaster."""
    stack = Stack(
        new_data_dir(),
        ports=Ports.free(),
        services=(FEED,),
        env={"OPEN_CATALOGUE": "false", "FEED_HEARTBEAT_S": "0.5"},
        postgres_url=postgres_url,
    )
    try:
        asyncio.run(stack.start())
        yield stack
    finally:
        asyncio.run(stack.stop())
        shutil.rmtree(stack.data_dir, ignore_errors=True)


@pytest_asyncio.fixture
async def house(world: Stack) -> AsyncIterator[AuctionHouse]:
    async with AuctionHouse.at(world.urls.redis_url, world.urls.nats_url) as opened:
        yield opened


def ws_url(stack: Stack, path: str, port: int | None = None) -> str:
    return f"ws://127.0.0.1:{port or stack.ports.broadcast}{path}"


@asynccontextmanager
async def another_feed(stack: Stack, name: str, **env: str) -> AsyncIterator[int]:
    """One more broadcaster on the same servers, with settings of its own; its port."""
    [port] = free_ports(1)
    await stack.add_service(name, FEED, port, {"BROADCAST_PORT": str(port), **env})
    try:
        yield port
    finally:
        await stack.stop_process(name)


async def http_get(stack: Stack, path: str, port: int | None = None, **headers: str) -> httpx.Response:
    async with httpx.AsyncClient() as client:
        return await client.get(f"http://127.0.0.1:{port or stack.ports.broadcast}{path}", headers=headers)


async def metric(stack: Stack, name: str, port: int | None = None) -> float:
    text = (await http_get(stack, "/metrics", port)).text
    return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(name))


async def until_metric(stack: Stack, name: str, at_least: float, port: int | None = None) -> None:
    async def reached() -> bool:
        return await metric(stack, name, port) >= at_least

    assert await until(reached), f"{name} stayed below {at_least}"


async def closed_with(viewer: ClientConnection) -> int:
    """Read to the end; the close code that the service sent."""

    async def read_all() -> None:
        while True:
            await viewer.recv()

    async with asyncio.timeout(PATIENCE_S):
        with pytest.raises(ConnectionClosed) as closed:
            await read_all()
    assert closed.value.rcvd is not None, "cut off without a close frame"
    return closed.value.rcvd.code


def seqs(frames: list[Json]) -> list[int]:
    return [frame["seq"] for frame in frames]


# ------------------------------------------------------------------------------------------- what a viewer sees


@pytest.mark.parametrize("path", ["/ws/items/{}", "/ws?item_id={}"])
async def test_connected_then_the_snapshot_then_every_bid(world: Stack, house: AuctionHouse, path: str) -> None:
    item = await house.open(reserve_price=77_777, start_price=50)
    async with connect(ws_url(world, path.format(item))) as viewer:
        connected, snapshot = await receive_many(viewer, 2)
        assert connected["type"] == "connected"
        assert connected["itemId"] == item
        assert connected["clientId"]
        assert connected["server_time"].endswith("Z")
        assert (snapshot["type"], snapshot["item_id"], snapshot["seq"]) == ("snapshot", item, 0)
        assert (snapshot["status"], snapshot["min_next_bid"], snapshot["reserve_met"]) == ("open", 0.5, False)
        await house.bid(item, 100)
        await house.bid(item, 250, 300, user="bob")
        first, second, third = await receive_many(viewer, 3)
        assert (
            first.items()
            >= {
                "type": "bid",
                "event_id": f"{item}:1:1",
                "item_id": item,
                "user_id": "ann",
                "amount": 1.0,
                "previous_bid": 0.5,
                "epoch": 1,
                "seq": 1,
                "kind": "bid",
                "current_bid": 1.0,
                "highest_bidder_id": "ann",
                "bid_count": 1,
                "min_next_bid": 1.01,
                "status": "open",
                "end_time": None,
                "reserve_met": False,
                "currency": "USD",
            }.items()
        )
        assert first["bid_id"].startswith("bid-")
        assert (second["amount"], second["user_id"], third["seq"], third["bid_count"]) == (2.5, "bob", 3, 3)
        assert "777" not in json.dumps([connected, snapshot, first, second, third]), "the reserve is nobody's business"


async def test_operations_are_seen_with_their_reason(world: Stack, house: AuctionHouse) -> None:
    item = await house.open()
    async with connect(ws_url(world, f"/ws/items/{item}")) as viewer:
        await greeted(viewer)
        await house.operate("pause", item, "fire alarm")
        await house.operate("resume", item, "false alarm")
        await house.operate("cancel", item, "withdrawn")
        frames = await receive_many(viewer, 3)
        assert [(frame["type"], frame["reason"], frame["status"], frame["seq"]) for frame in frames] == [
            ("paused", "fire alarm", "paused", 1),
            ("resumed", "false alarm", "open", 2),
            ("cancelled", "withdrawn", "cancelled", 3),
        ]
        assert "operator-1" not in json.dumps(frames)


async def test_fifty_viewers_get_the_identical_text(world: Stack, house: AuctionHouse) -> None:
    item = await house.open()
    viewers = [await connect(ws_url(world, f"/ws/items/{item}")) for _ in range(50)]
    try:
        for viewer in viewers:
            await greeted(viewer)
        assert (await http_get(world, f"/stats/items/{item}")).json() == {"itemId": item, "subscribers": 50}
        for amount in (100, 200, 300):
            await house.bid(item, amount)
        async with asyncio.timeout(PATIENCE_S):
            texts = [[await viewer.recv() for _ in range(3)] for viewer in viewers]
        assert [json.loads(text)["seq"] for text in texts[0]] == [1, 2, 3]
        assert all(seen == texts[0] for seen in texts)
    finally:
        for viewer in viewers:
            await viewer.close()

    async def nobody() -> bool:
        return bool((await http_get(world, f"/stats/items/{item}")).json()["subscribers"] == 0)

    assert await until(nobody)


async def test_many_items_on_one_connection(world: Stack, house: AuctionHouse) -> None:
    first, second = await house.open(), await house.open()
    await house.bid(second, 100, 200)
    async with connect(ws_url(world, "/ws")) as viewer:
        assert (await receive(viewer))["itemId"] is None
        say = {"op": "subscribe", "items": [first, "no-such-item", "b{d", second], "since": {second: "1:1"}}
        await viewer.send(json.dumps(say))
        frames = await receive_many(viewer, 5)
        assert {frame["code"] for frame in frames if frame["type"] == "error"} == {"ITEM_ID_INVALID", "ITEM_NOT_FOUND"}
        of_item = {item: [f for f in frames if f.get("item_id") == item] for item in (first, second)}
        assert [(frame["type"], frame["seq"]) for frame in of_item[first]] == [("snapshot", 0)]
        assert [(frame["type"], frame["seq"]) for frame in of_item[second]] == [("resumed", 2), ("bid", 2)]
        await house.bid(first, 100)
        assert (await receive(viewer))["item_id"] == first
        await viewer.send(json.dumps({"op": "unsubscribe", "items": [first, "never-followed"]}))
        assert await receive(viewer) == {"type": "unsubscribed", "items": [first]}
        await house.bid(first, 200)
        await house.bid(second, 300)
        assert (await receive(viewer))["item_id"] == second
        for nonsense in ("{", '{"op":"shout"}', '{"op":"subscribe"}', b"\x00"):
            await viewer.send(nonsense)
            assert (await receive(viewer))["code"] == "OPERATION_INVALID"
        await viewer.send('{"op":"ping"}')
        assert (await receive(viewer))["type"] == "pong"


# ---------------------------------------------------------------------------- the joint, gaps and coming back


@asynccontextmanager
async def feed_behind_a_gate(stack: Stack, name: str) -> AsyncIterator[tuple[Gate, int]]:
    async with (
        Gate("127.0.0.1", stack.ports.redis).serve() as gate,
        another_feed(
            stack,
            name,
            REDIS_URL=f"redis://127.0.0.1:{gate.port}/0",
            REDIS_TIMEOUT_MS="60000",
            OPEN_CATALOGUE="true",
        ) as port,
    ):
        yield gate, port


@pytest.mark.parametrize("held", ["requests", "answers"])
async def test_a_bid_between_subscribing_and_the_snapshot_is_neither_lost_nor_doubled(
    world: Stack, house: AuctionHouse, held: str
) -> None:
    """Where the request is held, the snapshot has the bid already; where the answer is held, it has not."""
    item = await house.open()
    await house.bid(item, 100)
    async with feed_behind_a_gate(world, f"feed-{held}") as (gate, port):
        gate.hold(held)
        async with connect(ws_url(world, f"/ws/items/{item}", port)) as viewer:
            assert (await receive(viewer))["type"] == "connected"
            await gate.something_held(held)
            before = await metric(world, "feed_events_watched_total", port)
            await house.bid(item, 200)
            await until_metric(world, "feed_events_watched_total", before + 1, port)
            gate.release(held)
            snapshot = await receive(viewer)
            assert (snapshot["type"], snapshot["seq"], snapshot["current_bid"]) == ("snapshot", 2, 2.0)
            await house.bid(item, 300)
            after = await receive(viewer)
            assert (after["type"], after["seq"]) == ("bid", 3)


async def test_an_unknown_item_in_an_open_catalogue_is_seen_from_its_first_bid_on(
    world: Stack, house: AuctionHouse
) -> None:
    async with (
        another_feed(world, "feed-open", OPEN_CATALOGUE="true") as port,
        connect(ws_url(world, "/ws/items/new-here", port)) as viewer,
    ):
        unknown = {"type": "snapshot", "item_id": "new-here", "status": "unknown", "epoch": 0, "seq": -1}
        assert await greeted(viewer) == unknown
        await house.open("new-here", start_price=70)
        await house.bid("new-here", 100)
        opened, bid = await receive_many(viewer, 2)
        assert (opened["type"], opened["seq"], opened["current_bid"]) == ("snapshot", 0, 0.7)
        assert (bid["type"], bid["seq"], bid["amount"]) == ("bid", 1, 1.0)


async def test_a_lost_message_is_replayed_from_redis(world: Stack, house: AuctionHouse) -> None:
    item = await house.open()
    async with connect(ws_url(world, f"/ws/items/{item}")) as viewer:
        await greeted(viewer)
        late = await house.decide(item, 100, 200)
        await house.bid(item, 300)
        assert [(frame["type"], frame["seq"]) for frame in await receive_many(viewer, 3)] == [
            ("bid", 1),
            ("bid", 2),
            ("bid", 3),
        ]
        # The relay was only slow: its message comes after all, and once more with another id.
        await house.publish(late)
        await house.publish_raw(item, b'{"not": "an event"}')
        await house.bid(item, 400)
        assert (await receive(viewer))["seq"] == 4


async def test_a_message_that_cannot_be_read_does_not_cost_a_bid(world: Stack, house: AuctionHouse) -> None:
    item = await house.open()
    async with connect(ws_url(world, f"/ws/items/{item}")) as viewer:
        await greeted(viewer)
        await house.decide(item, 100)
        await house.publish_raw(item, b"\xff")
        assert (await receive(viewer))["seq"] == 1


class TestSince:
    async def test_exactly_what_was_missed(self, world: Stack, house: AuctionHouse) -> None:
        item = await house.open()
        await house.bid(item, 100, 200, 300)
        async with connect(ws_url(world, f"/ws/items/{item}?since=1:1")) as viewer:
            resumed = await greeted(viewer)
            assert resumed.items() >= {"type": "resumed", "recovered": True, "replayed": 2, "seq": 3}.items()
            assert [(frame["type"], frame["seq"]) for frame in await receive_many(viewer, 2)] == [
                ("bid", 2),
                ("bid", 3),
            ]
            await house.bid(item, 400)
            assert (await receive(viewer))["seq"] == 4

    async def test_nothing_was_missed(self, world: Stack, house: AuctionHouse) -> None:
        item = await house.open()
        async with connect(ws_url(world, f"/ws/items/{item}?since=1:0")) as viewer:
            assert (await greeted(viewer))["replayed"] == 0
            await house.bid(item, 100)
            assert (await receive(viewer))["seq"] == 1

    @pytest.mark.parametrize("since", ["1:1", "7:3", "1:999999"])
    async def test_what_is_gone_is_a_snapshot_that_says_so(self, world: Stack, house: AuctionHouse, since: str) -> None:
        item = await house.open()
        await house.bid(item, 100, 200, 300, 400)
        await house.shorten_recent(item, 2)
        async with connect(ws_url(world, f"/ws/items/{item}?since={since}")) as viewer:
            snapshot = await greeted(viewer)
            assert (snapshot["type"], snapshot["seq"], snapshot["recovered"]) == ("snapshot", 4, False)

    async def test_viewers_of_a_broadcaster_that_was_killed_miss_nothing(
        self, world: Stack, house: AuctionHouse
    ) -> None:
        item = await house.open()
        async with another_feed(world, "feed-killed") as port:
            async with connect(ws_url(world, f"/ws/items/{item}", port)) as viewer:
                await greeted(viewer)
                await house.bid(item, 100)
                seen = await receive(viewer)
                world.kill("feed-killed", signal.SIGKILL)
                with pytest.raises(ConnectionClosed):
                    await receive(viewer)
            await house.bid(item, 200, 300)
            assert await world.wait_ended("feed-killed")
            await world.start_process("feed-killed")
            since = f"{seen['epoch']}:{seen['seq']}"
            async with connect(ws_url(world, f"/ws/items/{item}?since={since}", port)) as viewer:
                assert (await greeted(viewer))["recovered"] is True
                assert seqs(await receive_many(viewer, 2)) == [2, 3]


# ------------------------------------------------------------------------------------------ when servers are away


async def test_viewers_catch_up_after_nats_was_killed(world: Stack) -> None:
    async with AuctionHouse.at(world.urls.redis_url, world.urls.nats_url) as house:
        item = await house.open()
        viewer = await connect(ws_url(world, f"/ws/items/{item}"))
        await greeted(viewer)
        await house.bid(item, 100)
        assert (await receive(viewer))["seq"] == 1
        consumers = await metric(world, "feed_consumers_created_total")
        world.kill("nats", signal.SIGKILL)
        assert await world.wait_ended("nats")
        entries = [await house.decide(item, amount) for amount in (200, 300)]

        async def is_degraded() -> bool:
            return bool((await http_get(world, "/ready")).json()["degraded"] == ["nats"])

        assert await until(is_degraded)
        assert (await http_get(world, "/ready")).status_code == 200
        # A newcomer is shown what Redis knows, and so is everybody else.
        async with connect(ws_url(world, f"/ws/items/{item}")) as newcomer:
            assert (await greeted(newcomer))["seq"] == 3
        assert seqs(await receive_many(viewer, 2)) == [2, 3]
        # Decided while nobody looks: found when the stream is back, before the relay is.
        entries.append(await house.decide(item, 400))
        await world.start_process("nats")
        await until_metric(world, "feed_consumers_created_total", consumers + 1)
        assert (await receive(viewer))["seq"] == 4
    async with AuctionHouse.at(world.urls.redis_url, world.urls.nats_url) as house:
        for entry in entries:
            await house.publish(entry)
        await house.bid(item, 500)
        last = await receive(viewer)
        assert (last["seq"], last["amount"]) == (5, 5.0)
        await viewer.close()


async def test_viewers_catch_up_after_nats_stood_still(world: Stack, house: AuctionHouse) -> None:
    item = await house.open()
    async with connect(ws_url(world, f"/ws/items/{item}")) as viewer:
        await greeted(viewer)
        created = await metric(world, "feed_consumers_created_total")
        world.kill("nats", signal.SIGSTOP)
        try:
            await house.decide(item, 100)

            async def is_down() -> bool:
                return await metric(world, "feed_stream_up") == 0

            assert await until(is_down), "silence was not noticed"
        finally:
            world.kill("nats", signal.SIGCONT)
        await until_metric(world, "feed_consumers_created_total", created + 1)
        assert (await receive(viewer))["seq"] == 1


async def test_it_starts_without_servers_and_serves_when_they_come(world: Stack, house: AuctionHouse) -> None:
    item = await house.open()
    await house.bid(item, 100)
    async with Gate("127.0.0.1", world.ports.redis).serve() as gate:
        gate.hold("answers")
        [port] = free_ports(1)
        env = {"BROADCAST_PORT": str(port), "REDIS_URL": f"redis://127.0.0.1:{gate.port}/0", "REDIS_TIMEOUT_MS": "200"}
        starting = asyncio.create_task(world.add_service("feed-early", FEED, port, env))
        try:

            async def answers() -> bool:
                try:
                    return (await http_get(world, "/health", port)).status_code == 200
                except httpx.TransportError:
                    return False

            assert await until(answers)
            ready = await http_get(world, "/ready", port)
            assert (ready.status_code, ready.json()["redis"]) == (503, "down")
            async with connect(ws_url(world, f"/ws/items/{item}", port)) as viewer:
                assert (await receive(viewer))["type"] == "connected"
                await until_metric(world, "feed_loads_failed_total", 1, port)
                gate.release("answers")
                snapshot = await receive(viewer)
                assert (snapshot["type"], snapshot["seq"]) == ("snapshot", 1)
            await starting
        finally:
            starting.cancel()
            await asyncio.gather(starting, return_exceptions=True)
            await world.stop_process("feed-early")


# ------------------------------------------------------------------------------------------------ limits and ends


async def test_an_item_that_does_not_exist_ends_the_connection_for_good(world: Stack) -> None:
    async with connect(ws_url(world, "/ws/items/nobody-opened-this")) as viewer:
        error = await greeted(viewer)
        assert (error["type"], error["code"]) == ("error", "ITEM_NOT_FOUND")
        assert await closed_with(viewer) == ITEM_NOT_FOUND.code


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/ws/items/b%7Bd", {}, 422),
        ("/ws/items/a/b", {}, 422),
        (f"/ws/items/{'x' * 65}", {}, 422),
        ("/ws?item_id=a*", {}, 422),
        ("/ws/items/fine?since=yesterday", {}, 422),
        ("/ws/items/fine", {"Origin": "https://evil.example"}, 403),
    ],
)
async def test_refused_upgrades(world: Stack, path: str, headers: dict[str, str], status: int) -> None:
    with pytest.raises(InvalidStatus) as refused:
        await connect(ws_url(world, path), additional_headers=headers)
    assert refused.value.response.status_code == status
    assert json.loads(refused.value.response.body)["error"]


async def test_a_full_broadcaster_refuses_the_next_viewer(world: Stack) -> None:
    async with (
        another_feed(world, "feed-full", FEED_CONNECTIONS_MAX="1", FEED_ITEMS_PER_CONNECTION_MAX="2") as port,
        connect(ws_url(world, "/ws", port)) as viewer,
    ):
        await receive(viewer)
        with pytest.raises(InvalidStatus) as refused:
            await connect(ws_url(world, "/ws", port))
        assert refused.value.response.status_code == 503
        assert refused.value.response.headers["retry-after"]
        await viewer.send(json.dumps({"op": "subscribe", "items": ["a", "b", "c", "d"]}))
        assert (await receive(viewer))["code"] == "TOO_MANY_ITEMS"


async def test_messages_that_are_too_long_end_the_connection(world: Stack) -> None:
    async with connect(ws_url(world, "/ws")) as viewer:
        await viewer.send("x" * 9_000)
        assert await closed_with(viewer) == 1009


async def test_health_readiness_and_who_may_read_them(world: Stack) -> None:
    health = await http_get(world, "/health", origin="http://localhost:8080")
    assert health.json().items() >= {"status": "healthy", "service": "broadcast-service"}.items()
    assert health.headers["access-control-allow-origin"] == "http://localhost:8080"
    ready = await http_get(world, "/ready", origin="https://evil.example")
    assert (ready.status_code, ready.json()["status"]) == (200, "ready")
    assert "access-control-allow-origin" not in ready.headers
    assert (await http_get(world, "/stats/items/a%7Bb")).status_code == 422
    assert (await http_get(world, "/nowhere")).json()["error"]


def slow_socket(port: int) -> socket.socket:
    """A socket with hardly any room, so that a viewer who does not read is noticed soon."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    sock.connect(("127.0.0.1", port))
    sock.setblocking(False)
    return sock


def open_sockets(stack: Stack, name: str, port: int) -> int:
    """Connections of viewers that the process still holds."""
    sockets = psutil.Process(stack.pid(name)).net_connections("tcp")
    return sum(1 for one in sockets if one.laddr.port == port and one.raddr)


async def test_a_viewer_that_stops_reading_is_conflated_and_then_closed_while_others_get_everything(
    world: Stack, house: AuctionHouse
) -> None:
    item = await house.open()
    path = f"/ws/items/{item}"
    env = {"FEED_SEND_BUFFER_BYTES": "4096", "FEED_QUEUE_FRAMES_MAX": "8", "FEED_STALLED_MAX_S": "1.5"}
    async with (
        another_feed(world, "feed-slow", **env) as port,
        connect(ws_url(world, path, port)) as healthy,
        connect(ws_url(world, path, port), sock=slow_socket(port), max_queue=1) as slow,
        connect(ws_url(world, path, port), sock=slow_socket(port), max_queue=1) as stuck,
        connect(ws_url(world, path, port), sock=slow_socket(port), max_queue=1, close_timeout=0.1) as deaf,
    ):
        for viewer in (healthy, slow, stuck, deaf):
            await greeted(viewer)
        amount, seq = 0, 0

        async def hundred_bids() -> list[Json]:
            nonlocal amount, seq
            amounts = range(amount + 1, amount + 101)
            await house.bid(item, *amounts)
            amount, seq = amount + 100, seq + 100
            return await receive_many(healthy, 100)

        seen: list[Json] = []
        for _ in range(10):
            seen += await hundred_bids()
        await until_metric(world, "feed_frames_queued_total", 100, port)
        # The slow one reads again: what it had been sent, then the newest state in place of what it was too slow for.
        caught_up = await receive_until_seq(slow, seq)
        assert seqs(caught_up) == sorted(set(seqs(caught_up)))
        assert len(caught_up) < seq
        states = [frame for frame in caught_up if frame["type"] == "state"]
        assert states
        assert sum(frame.get("bids_since_last", 1) for frame in caught_up) == seq, "every bid is shown or counted"
        assert caught_up[-1]["current_bid"] == seq / 100
        # The others are given up. One learns why when it reads again, in time; the other never does and is cut off.
        await until_metric(world, f'feed_connections_closed_total{{code="{SLOW_VIEWER.name}"}}', 2, port)
        assert await closed_with(stuck) == SLOW_VIEWER.code

        async def only_two_sockets_are_left() -> bool:
            return open_sockets(world, "feed-slow", port) == 2

        assert await until(only_two_sockets_are_left)
        seen += await hundred_bids()
        assert seqs(seen) == list(range(1, seq + 1))
        assert all(frame["type"] == "bid" for frame in seen)
        assert (await receive_until_seq(slow, seq))[-1]["seq"] == seq


async def test_viewers_are_sent_away_in_good_order_at_a_shutdown(world: Stack, house: AuctionHouse) -> None:
    item = await house.open()
    async with another_feed(world, "feed-ending") as port:
        viewers = [await connect(ws_url(world, f"/ws/items/{item}", port)) for _ in range(5)]
        for viewer in viewers:
            await greeted(viewer)
        world.kill("feed-ending", signal.SIGTERM)
        assert [await closed_with(viewer) for viewer in viewers] == [SERVICE_RESTART.code] * 5
        assert await world.wait_ended("feed-ending")
