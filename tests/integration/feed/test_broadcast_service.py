"""The broadcaster as a process, with real Redis, NATS and WebSockets: what viewers see, whatever fails."""

from __future__ import annotations

import asyncio
import json
import signal
import socket

import psutil
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus

from broadcast_service.core.close_codes import ITEM_NOT_FOUND, SERVICE_RESTART, SLOW_VIEWER
from infrastructure.local.stack import Stack
from tests.integration.feed.feed_world import (
    PATIENCE_S,
    AuctionHouse,
    Json,
    another_feed,
    closed_with,
    greeted,
    http_get,
    receive,
    receive_many,
    receive_type,
    receive_until_seq,
    seqs,
    until_metric,
    ws_url,
)
from tests.waiting import eventually

pytestmark = pytest.mark.integration


# ------------------------------------------------------------------------------------------- what a viewer sees


@pytest.mark.parametrize("path", ["/ws/items/{}?feed=full", "/ws?item_id={}&feed=full"])
async def test_connected_then_the_snapshot_then_every_bid(feed_stack: Stack, house: AuctionHouse, path: str) -> None:
    item = await house.open(reserve_price=77_777, start_price=50)
    async with connect(ws_url(feed_stack, path.format(item))) as viewer:
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
        assert "777.77" not in json.dumps([connected, snapshot, first, second, third]), (
            "the reserve is nobody's business"
        )


async def test_operations_are_seen_with_their_reason(feed_stack: Stack, house: AuctionHouse) -> None:
    item = await house.open()
    async with connect(ws_url(feed_stack, f"/ws/items/{item}")) as viewer:
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


async def test_fifty_viewers_get_the_identical_text(feed_stack: Stack, house: AuctionHouse) -> None:
    item = await house.open()
    viewers = [await connect(ws_url(feed_stack, f"/ws/items/{item}?feed=full")) for _ in range(50)]

    async def bid_texts(viewer: ClientConnection) -> list[str | bytes]:
        texts: list[str | bytes] = []
        while len(texts) < 3:
            text = await viewer.recv()
            if json.loads(text)["type"] == "bid":
                texts.append(text)
        return texts

    try:
        for viewer in viewers:
            await greeted(viewer)
        assert (await http_get(feed_stack, f"/stats/items/{item}")).json() == {
            "itemId": item,
            "subscribers": 50,
            "viewers": 50,
            "exact": True,
        }
        for amount in (100, 200, 300):
            await house.bid(item, amount)
        async with asyncio.timeout(PATIENCE_S):
            texts = [await bid_texts(viewer) for viewer in viewers]
        assert [json.loads(text)["seq"] for text in texts[0]] == [1, 2, 3]
        assert all(seen == texts[0] for seen in texts)
    finally:
        for viewer in viewers:
            await viewer.close()

    async def nobody() -> bool:
        return bool((await http_get(feed_stack, f"/stats/items/{item}")).json()["subscribers"] == 0)

    await eventually(nobody, seconds=60)


async def test_faster_bids_than_shown_are_counted_and_the_last_state_is_shown(
    feed_stack: Stack, house: AuctionHouse
) -> None:
    item = await house.open()
    async with (
        another_feed(feed_stack, "feed-slowly", FEED_RATE_MAX="1") as port,
        connect(ws_url(feed_stack, f"/ws/items/{item}", port)) as conflated,
        connect(ws_url(feed_stack, f"/ws/items/{item}?feed=full", port)) as full,
    ):
        for viewer in (conflated, full):
            assert (await greeted(viewer))["seq"] == 0
        await house.bid(item, 1)
        first = await receive(conflated)
        assert (first["type"], first["seq"]) == ("bid", 1), "one that comes alone is shown as it is"
        # Decided before: the bids then come as fast as they can be published. So many in one message are too many for
        # one slot, however slow the machine is; those after them may fall into slots of their own.
        decided = [await house.decide(item, *range(2, 11))] + [await house.decide(item, n) for n in range(11, 21)]
        for entry in decided:
            await house.publish(entry)
        assert seqs(await receive_many(full, 20)) == list(range(1, 21))
        # It joins while bids wait: its snapshot has them, then come the new ones.
        async with connect(ws_url(feed_stack, f"/ws/items/{item}", port)) as newcomer:
            assert (await greeted(newcomer))["seq"] == 20
            await house.bid(item, 21)
            assert (await receive_until_seq(newcomer, 21))[0]["seq"] == 21
        frames = [first, *await receive_until_seq(conflated, 21)]
        assert seqs(frames) == sorted(set(seqs(frames)))
        assert len(frames) < 15
        assert any(frame["type"] == "state" and frame["extensions"] == 0 for frame in frames)
        assert sum(frame.get("bids_since_last", 1) for frame in frames) == 21, "every bid is shown or counted"
        assert frames[-1]["current_bid"] == 0.21
        # Only bids wait; before another event, the waiting ones are shown.
        await house.bid(item, 22)
        await house.operate("pause", item, "fire alarm")
        last = await receive_until_seq(conflated, 23)
        assert [frame["seq"] for frame in last] == [22, 23]
        assert last[-1]["type"] == "paused"


async def test_the_number_of_viewers_is_that_of_all_broadcasters(feed_stack: Stack, house: AuctionHouse) -> None:
    item = await house.open()
    async with (
        another_feed(feed_stack, "feed-left", FEED_VIEWERS_S="1") as left,
        another_feed(feed_stack, "feed-right", FEED_VIEWERS_S="1") as right,
        connect(ws_url(feed_stack, f"/ws/items/{item}", left)) as viewer,
    ):

        async def told(viewers: int, *, exact: bool) -> None:
            expected = {"type": "viewers", "item_id": item, "viewers": viewers, "exact": exact}
            while await receive_type(viewer, "viewers") != expected:
                pass

        await told(1, exact=True)
        async with connect(ws_url(feed_stack, f"/ws/items/{item}", right)) as other:
            await told(2, exact=False)
            assert (await receive_type(other, "viewers"))["viewers"] in (1, 2)

            async def both_are_counted() -> bool:
                stats = (await http_get(feed_stack, f"/stats/items/{item}", left)).json()
                return bool(stats == {"itemId": item, "subscribers": 1, "viewers": 2, "exact": False})

            await eventually(both_are_counted, seconds=60)
        await told(1, exact=True)
        async with connect(ws_url(feed_stack, f"/ws/items/{item}", right)):
            await told(2, exact=False)
            # Without a last announcement, the counts are forgotten in time.
            feed_stack.kill("feed-right", signal.SIGKILL)
            await told(1, exact=True)


async def test_many_items_on_one_connection(feed_stack: Stack, house: AuctionHouse) -> None:
    first, second = await house.open(), await house.open()
    await house.bid(second, 100, 200)
    async with connect(ws_url(feed_stack, "/ws")) as viewer:
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


async def test_an_unknown_item_in_an_open_catalogue_is_seen_from_its_first_bid_on(
    feed_stack: Stack, house: AuctionHouse
) -> None:
    async with (
        another_feed(feed_stack, "feed-open", OPEN_CATALOGUE="true") as port,
        connect(ws_url(feed_stack, "/ws/items/new-here", port)) as viewer,
    ):
        unknown = {"type": "snapshot", "item_id": "new-here", "status": "unknown", "epoch": 0, "seq": -1}
        assert await greeted(viewer) == unknown
        await house.open("new-here", start_price=70)
        await house.bid("new-here", 100)
        opened, bid = await receive_many(viewer, 2)
        assert (opened["type"], opened["seq"], opened["current_bid"]) == ("snapshot", 0, 0.7)
        assert (bid["type"], bid["seq"], bid["amount"]) == ("bid", 1, 1.0)


# ------------------------------------------------------------------------------------------------ limits and ends


async def test_an_item_that_does_not_exist_ends_the_connection_for_good(feed_stack: Stack) -> None:
    async with connect(ws_url(feed_stack, "/ws/items/nobody-opened-this")) as viewer:
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
async def test_refused_upgrades(feed_stack: Stack, path: str, headers: dict[str, str], status: int) -> None:
    with pytest.raises(InvalidStatus) as refused:
        await connect(ws_url(feed_stack, path), additional_headers=headers)
    assert refused.value.response.status_code == status
    assert json.loads(refused.value.response.body)["error"]


async def test_a_full_broadcaster_refuses_the_next_viewer(feed_stack: Stack) -> None:
    async with (
        another_feed(feed_stack, "feed-full", FEED_CONNECTIONS_MAX="1", FEED_ITEMS_PER_CONNECTION_MAX="2") as port,
        connect(ws_url(feed_stack, "/ws", port)) as viewer,
    ):
        await receive(viewer)
        with pytest.raises(InvalidStatus) as refused:
            await connect(ws_url(feed_stack, "/ws", port))
        assert refused.value.response.status_code == 503
        assert refused.value.response.headers["retry-after"]
        await viewer.send(json.dumps({"op": "subscribe", "items": ["a", "b", "c", "d"]}))
        assert (await receive(viewer))["code"] == "TOO_MANY_ITEMS"


async def test_messages_that_are_too_long_end_the_connection(feed_stack: Stack) -> None:
    async with connect(ws_url(feed_stack, "/ws")) as viewer:
        await viewer.send("x" * 9_000)
        assert await closed_with(viewer) == 1009


async def test_health_readiness_and_who_may_read_them(feed_stack: Stack) -> None:
    health = await http_get(feed_stack, "/health", origin="http://localhost:8080")
    assert health.json().items() >= {"status": "healthy", "service": "broadcast-service"}.items()
    assert health.headers["access-control-allow-origin"] == "http://localhost:8080"
    ready = await http_get(feed_stack, "/ready", origin="https://evil.example")
    assert (ready.status_code, ready.json()["status"]) == (200, "ready")
    assert "access-control-allow-origin" not in ready.headers
    assert (await http_get(feed_stack, "/stats/items/a%7Bb")).status_code == 422
    assert (await http_get(feed_stack, "/nowhere")).json()["error"]


STALLED_MAX_S = 8
"""Longer than 1,000 bids take on a busy machine: the slow viewer must not be closed before it reads again."""


def slow_socket(port: int) -> socket.socket:
    """A socket with small buffers, so that a viewer who does not read is noticed soon."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    sock.connect(("127.0.0.1", port))
    sock.setblocking(False)
    return sock


def open_sockets(stack: Stack, name: str, port: int) -> int:
    """The viewers' connections that the process still has."""
    sockets = psutil.Process(stack.pid(name)).net_connections("tcp")
    return sum(1 for one in sockets if one.laddr.port == port and one.raddr)


async def test_a_viewer_that_stops_reading_is_conflated_and_then_closed_while_others_get_everything(
    feed_stack: Stack, house: AuctionHouse
) -> None:
    item = await house.open()
    path = f"/ws/items/{item}?feed=full"
    env = {"FEED_SEND_BUFFER_BYTES": "4096", "FEED_QUEUE_FRAMES_MAX": "8", "FEED_STALLED_MAX_S": str(STALLED_MAX_S)}
    async with (
        another_feed(feed_stack, "feed-slow", **env) as port,
        connect(ws_url(feed_stack, path, port)) as healthy,
        connect(ws_url(feed_stack, path, port), sock=slow_socket(port), max_queue=1) as slow,
        connect(ws_url(feed_stack, path, port), sock=slow_socket(port), max_queue=1) as stuck,
        connect(ws_url(feed_stack, path, port), sock=slow_socket(port), max_queue=1, close_timeout=0.1) as deaf,
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
        await until_metric(feed_stack, "feed_frames_queued_total", 100, port)
        # The slow viewer reads again: first the frames that were sent, then the newest state in place of the others.
        caught_up = await receive_until_seq(slow, seq)
        assert seqs(caught_up) == sorted(set(seqs(caught_up)))
        assert len(caught_up) < seq
        states = [frame for frame in caught_up if frame["type"] == "state"]
        assert states
        assert sum(frame.get("bids_since_last", 1) for frame in caught_up) == seq, "every bid is shown or counted"
        assert caught_up[-1]["current_bid"] == seq / 100
        # The others are closed. One reads again in time and gets the close code; the other never reads and is aborted.
        name = f'feed_connections_closed_total{{code="{SLOW_VIEWER.name}"}}'
        await until_metric(feed_stack, name, 2, port, every_s=0.3)
        assert await closed_with(stuck) == SLOW_VIEWER.code

        async def only_two_sockets_are_left() -> bool:
            return open_sockets(feed_stack, "feed-slow", port) == 2

        await eventually(only_two_sockets_are_left, seconds=60)
        seen += await hundred_bids()
        assert seqs(seen) == list(range(1, seq + 1))
        assert all(frame["type"] == "bid" for frame in seen)
        assert (await receive_until_seq(slow, seq))[-1]["seq"] == seq


async def test_viewers_are_sent_away_in_good_order_at_a_shutdown(feed_stack: Stack, house: AuctionHouse) -> None:
    item = await house.open()
    async with another_feed(feed_stack, "feed-ending") as port:
        viewers = [await connect(ws_url(feed_stack, f"/ws/items/{item}", port)) for _ in range(5)]
        for viewer in viewers:
            await greeted(viewer)
        feed_stack.kill("feed-ending", signal.SIGTERM)
        assert [await closed_with(viewer) for viewer in viewers] == [SERVICE_RESTART.code] * 5
        assert await feed_stack.wait_ended("feed-ending")
