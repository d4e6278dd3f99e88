"""Server-sent events over real servers: the same frames, bounds and ends as on a WebSocket."""

from __future__ import annotations

import asyncio
import json
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

import httpx2 as httpx
import pytest

from broadcast_service.core.close_codes import SLOW_VIEWER
from infrastructure.local.stack import Stack
from tests.integration.feed.feed_world import (
    PATIENCE_S,
    AuctionHouse,
    Json,
    another_feed,
    http_get,
    metric,
    until_metric,
)
from tests.waiting import eventually

pytestmark = pytest.mark.integration


@dataclass(frozen=True)
class Event:
    """One event, as a browser reads it."""

    id: str | None
    kind: str
    data: Json


class Stream:
    """Reads events by the HTML standard: one field per line, an empty line ends an event."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self._lines = response.aiter_lines()
        self.retry_ms: int | None = None

    async def next(self) -> Event:
        fields: dict[str, str] = {}
        async with asyncio.timeout(PATIENCE_S):
            async for line in self._lines:
                if line:
                    name, _, value = line.partition(": ")
                    fields[name] = value
                elif "data" in fields:
                    return Event(fields.get("id"), fields["event"], json.loads(fields["data"]))
                elif "retry" in fields:
                    self.retry_ms = int(fields.pop("retry"))
        raise EOFError("the stream ended")

    async def next_of(self, kind: str) -> Event:
        while (event := await self.next()).kind != kind:
            pass
        return event


@asynccontextmanager
async def stream(stack: Stack, path: str, port: int | None = None, **headers: str) -> AsyncIterator[Stream]:
    url = f"http://127.0.0.1:{port or stack.ports.broadcast}{path}"
    async with httpx.AsyncClient(timeout=PATIENCE_S) as client, client.stream("GET", url, headers=headers) as response:
        yield Stream(response)


async def test_connected_then_the_snapshot_then_every_bid(feed_stack: Stack, house: AuctionHouse) -> None:
    item = await house.open(reserve_price=77_777)
    async with stream(feed_stack, f"/sse/items/{item}?feed=full", origin="http://localhost:1234") as events:
        headers = events.response.headers
        assert headers["content-type"].startswith("text/event-stream")
        assert "no-store" in headers["cache-control"]
        assert headers["access-control-allow-origin"] == "http://localhost:1234"
        connected, snapshot = await events.next(), await events.next_of("snapshot")
        assert events.retry_ms is not None
        assert 1_000 <= events.retry_ms <= 3_000
        assert (connected.id, connected.kind, connected.data["feed"]) == (None, "connected", "full")
        assert (snapshot.id, snapshot.data["seq"]) == ("1:0", 0)
        await house.bid(item, 100, 200)
        bids = [await events.next_of("bid") for _ in range(2)]
        assert [bid.id for bid in bids] == ["1:1", "1:2"]
        assert bids[1].data.items() >= {"type": "bid", "item_id": item, "amount": 2.0, "user_id": "ann"}.items()


async def test_a_browser_that_comes_back_gets_exactly_what_it_missed(feed_stack: Stack, house: AuctionHouse) -> None:
    item = await house.open()
    await house.bid(item, 100, 200, 300)
    # Last-Event-ID is newer than the URL, which a browser does not change.
    path = f"/sse/items/{item}?since=1:0&feed=full"
    async with stream(feed_stack, path, None, **{"Last-Event-ID": "1:1"}) as events:
        resumed = await events.next_of("resumed")
        assert resumed.id is None, "the viewer was not shown this version yet"
        assert (resumed.data["replayed"], resumed.data["recovered"]) == (2, True)
        assert [(await events.next_of("bid")).id for _ in range(2)] == ["1:2", "1:3"]
    async with stream(feed_stack, path) as events:
        assert (await events.next_of("resumed")).data["replayed"] == 3


async def test_heartbeats_are_events_too(feed_stack: Stack, house: AuctionHouse) -> None:
    item = await house.open()
    async with (
        another_feed(feed_stack, "sse-beating", FEED_TIME_S="0.2") as port,
        stream(feed_stack, f"/sse/items/{item}", port) as events,
    ):
        beat = await events.next_of("heartbeat")
        assert (beat.id, beat.data["server_time"][-1]) == (None, "Z")


@pytest.mark.parametrize(
    ("path", "headers", "status", "code"),
    [
        ("/sse/items/nobody-opened-this", {}, 404, "ITEM_NOT_FOUND"),
        ("/sse/items/b%7Bd", {}, 422, "ITEM_ID_INVALID"),
        ("/sse/items/fine?since=yesterday", {}, 422, "SINCE_INVALID"),
        ("/sse/items/fine", {"Last-Event-ID": "yesterday"}, 422, "SINCE_INVALID"),
        ("/sse/items/fine", {"Origin": "https://evil.example"}, 403, "ORIGIN_NOT_ALLOWED"),
        ("/sse/items/fine?token=nonsense", {}, 401, "TOKEN_INVALID"),
    ],
)
async def test_refusals_are_problems_before_the_stream_starts(
    feed_stack: Stack, path: str, headers: dict[str, str], status: int, code: str
) -> None:
    answer = await http_get(feed_stack, path, None, **headers)
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert answer.headers["content-type"] == "application/problem+json"


async def test_an_unknown_item_in_an_open_catalogue_can_be_waited_for(feed_stack: Stack, house: AuctionHouse) -> None:
    async with another_feed(feed_stack, "sse-open", OPEN_CATALOGUE="true") as port:
        async with stream(feed_stack, "/sse/items/sse-new-here?feed=full", port) as events:
            unknown = await events.next_of("snapshot")
            assert (unknown.id, unknown.data["status"]) == ("0:-1", "unknown")
            await house.open("sse-new-here")
            await house.bid("sse-new-here", 100)
            assert (await events.next_of("bid")).id == "1:1"
        async with stream(feed_stack, "/sse/items/sse-new-here", port, **{"Last-Event-ID": "0:-1"}) as events:
            assert (await events.next_of("snapshot")).data["seq"] == 1


async def test_a_head_request_is_answered_and_over(feed_stack: Stack, house: AuctionHouse) -> None:
    item = await house.open()
    async with httpx.AsyncClient(timeout=PATIENCE_S) as client:
        answer = await client.head(f"http://127.0.0.1:{feed_stack.ports.broadcast}/sse/items/{item}")
    assert (answer.status_code, answer.content) == (200, b"")


async def test_a_client_that_leaves_is_forgotten(feed_stack: Stack, house: AuctionHouse) -> None:
    item = await house.open()
    async with stream(feed_stack, f"/sse/items/{item}") as events:
        await events.next_of("snapshot")
        assert (await http_get(feed_stack, f"/stats/items/{item}")).json()["subscribers"] == 1

    async def is_gone() -> bool:
        return bool((await http_get(feed_stack, f"/stats/items/{item}")).json()["subscribers"] == 0)

    await eventually(is_gone)


async def test_streams_end_in_good_order_at_a_shutdown(feed_stack: Stack, house: AuctionHouse) -> None:
    item = await house.open()
    async with another_feed(feed_stack, "sse-ending") as port, stream(feed_stack, f"/sse/items/{item}", port) as events:
        await events.next_of("snapshot")
        feed_stack.kill("sse-ending", signal.SIGTERM)
        # httpx would raise if the last chunk were missing.
        with pytest.raises(EOFError):
            await events.next_of("never")
        assert await feed_stack.wait_ended("sse-ending")


class SlowReader:
    """A stream whose client has small buffers, and reads when it is told to."""

    def __init__(self, port: int, item: str, query: str = "") -> None:
        self._sock = socket.socket()
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        self._sock.connect(("127.0.0.1", port))
        self._sock.sendall(f"GET /sse/items/{item}{query} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
        self._sock.setblocking(False)
        self._read = b""

    async def read_until(self, text: bytes) -> bytes:
        """Everything up to the text; EOFError if the stream ended before."""
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(PATIENCE_S):
            while text not in self._read:
                data = await loop.sock_recv(self._sock, 65_536)
                if not data:
                    raise EOFError(self._read[-200:])
                self._read += data
        return self._read

    def close(self) -> None:
        self._sock.close()


def seqs_of(raw: bytes) -> list[int]:
    """The seqs in the ids of a raw stream."""
    ids = [line for line in raw.decode(errors="ignore").splitlines() if line.startswith("id: ")]
    return [int(line.rpartition(":")[2]) for line in ids]


async def test_a_reader_that_stops_is_conflated_and_then_cut_while_others_get_everything(
    feed_stack: Stack, house: AuctionHouse
) -> None:
    item = await house.open()
    env = {"FEED_SEND_BUFFER_BYTES": "4096", "FEED_QUEUE_FRAMES_MAX": "8", "FEED_STALLED_MAX_S": "1.5"}
    async with (
        another_feed(feed_stack, "sse-slow", **env) as port,
        stream(feed_stack, f"/sse/items/{item}?feed=full", port) as healthy,
    ):
        await healthy.next_of("snapshot")
        slow, deaf = SlowReader(port, item, "?feed=full"), SlowReader(port, item, "?feed=full")
        try:
            for reader in (slow, deaf):
                await reader.read_until(b'"snapshot"')
            amount = 0
            for _ in range(10):
                await house.bid(item, *range(amount + 1, amount + 101))
                amount += 100
                for _ in range(100):
                    await healthy.next_of("bid")
            await until_metric(feed_stack, "feed_frames_queued_total", 100, port)
            raw = await slow.read_until(b"id: 1:1000\n")
            shown = seqs_of(raw)
            assert shown == sorted(set(shown)), "never back, and nothing twice"
            assert len(shown) < 900
            assert b"event: state\n" in raw
            # The other one is closed, its frames are dropped, and its socket is aborted.
            name = f'feed_connections_closed_total{{code="{SLOW_VIEWER.name}"}}'
            await until_metric(feed_stack, name, 1, port)

            async def two_are_left() -> bool:
                return await metric(feed_stack, "feed_connections ", port) == 2

            await eventually(two_are_left)
            await house.bid(item, amount + 1)
            assert (await healthy.next_of("bid")).id == f"1:{amount + 1}"
            await slow.read_until(f"id: 1:{amount + 1}\n".encode())
        finally:
            slow.close()
            deaf.close()


async def test_what_a_reader_says_later_is_not_listened_to(feed_stack: Stack, house: AuctionHouse) -> None:
    item = await house.open()
    reader, writer = await asyncio.open_connection("127.0.0.1", feed_stack.ports.broadcast)
    request = f"GET /sse/items/{item}?feed=full HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
    writer.write(request)
    async with asyncio.timeout(PATIENCE_S):
        await reader.readuntil(b'"snapshot"')
        writer.write(request + b"\x00nonsense\r\n\r\n")
        await writer.drain()
        await house.bid(item, 100)
        rest = await reader.readuntil(b"id: 1:1\n")
    assert b"HTTP/1.1" not in rest
    writer.close()
