"""Many connections that send what takes work, beside one viewer: its frames come as before, and memory stays."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

import pytest
from websockets.asyncio.client import ClientConnection, connect

from broadcast_service.core.close_codes import TOO_MANY_OPERATIONS
from infrastructure.local.stack import Stack
from tests.attacks import quantile, watched
from tests.integration.feed.feed_world import (
    FEED,
    PATIENCE_S,
    AuctionHouse,
    greeted,
    raw_upgrade,
    receive,
    receive_type,
    ws_url,
)

pytestmark = pytest.mark.integration

CROWD: Final = 150
PINGS: Final = b"\x89\x80\0\0\0\0" * 6_800
MESSAGES: Final = b"\x81\x8d\0\0\0\0" + b'{"op":"ping"}'
P99_MAX_S: Final = 0.5
"""On a busy machine. Without bounds it was 5 s and more."""
GROWS_MOST_BYTES: Final = 50_000_000


async def delays_of(house: AuctionHouse, viewer: ClientConnection, item: str, first: int, count: int) -> list[float]:
    """Place bids, 50 a second, and time each one until the viewer is shown it."""
    loop = asyncio.get_running_loop()
    sent_s: dict[int, float] = {}
    delays: list[float] = []

    async def see() -> None:
        while len(delays) < count:
            frame = await receive(viewer)
            seq = frame.get("seq")
            if frame["type"] in ("bid", "state") and isinstance(seq, int):
                # A state stands for the bids before it too.
                seen = [each for each in sent_s if each <= seq]
                delays.extend(loop.time() - sent_s.pop(each) for each in seen)

    seeing = asyncio.create_task(see())
    for number in range(first, first + count):
        sent_s[number] = loop.time()
        await house.bid(item, number * 100)
        await asyncio.sleep(0.02)
    async with asyncio.timeout(PATIENCE_S):
        await seeing
    return delays


@asynccontextmanager
async def crowd(port: int) -> AsyncIterator[list[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]:
    opened = [await raw_upgrade(port, "/ws") for _ in range(CROWD)]
    try:
        yield opened
    finally:
        for _, writer in opened:
            writer.transport.abort()


async def until_told(reader: asyncio.StreamReader, what: bytes) -> None:
    """Read until this comes, whatever is before it."""
    told = b""
    while what not in told:
        piece = await reader.read(65_536)
        assert piece, "closed without a word"
        told = told[-len(what) :] + piece


@pytest.mark.parametrize("flood", [PINGS, MESSAGES * 2_000], ids=["pings", "messages"])
async def test_a_crowd_that_sends_without_end_does_not_delay_a_viewer(
    feed_stack: Stack, house: AuctionHouse, flood: bytes
) -> None:
    item = await house.open()
    port = feed_stack.ports.broadcast
    async with (
        connect(ws_url(feed_stack, f"/ws/items/{item}?feed=full")) as viewer,
        crowd(port) as rude,
        watched(feed_stack.pid(FEED)) as memory,
    ):
        await greeted(viewer)
        for _, writer in rude:
            writer.write(flood)
        delays = await delays_of(house, viewer, item, 1, 100)
        assert quantile(delays, 0.99) < P99_MAX_S, f"p50 {quantile(delays, 0.5):.3f} s, most {max(delays):.3f} s"
        # Each was told, and then given up.
        code = TOO_MANY_OPERATIONS.code.to_bytes(2)
        async with asyncio.timeout(PATIENCE_S):
            for reader, _ in rude:
                await until_told(reader, code)
    assert memory.grown_bytes < GROWS_MOST_BYTES


async def test_what_nests_without_end_is_refused(feed_stack: Stack) -> None:
    """And the connection goes on."""
    async with connect(ws_url(feed_stack, "/ws")) as viewer:
        await receive_type(viewer, "connected")
        for text in ('{"op":' + "[" * 3_500, "[" * 8_000, '{"op":"subscribe","items":' + "[" * 3_500):
            await viewer.send(text)
            assert (await receive_type(viewer, "error"))["code"] == "OPERATION_INVALID"
        await viewer.send(json.dumps({"op": "ping"}))
        await receive_type(viewer, "pong")


async def test_streams_that_are_asked_for_together_are_no_error(feed_stack: Stack, house: AuctionHouse) -> None:
    """A stream has no end, so the second request has no answer; nothing is logged as an error."""
    item = await house.open()
    log = feed_stack.data_dir / "logs" / f"{FEED}.log"
    before = log.stat().st_size
    reader, writer = await asyncio.open_connection("127.0.0.1", feed_stack.ports.broadcast)
    writer.write(f"GET /sse/items/{item} HTTP/1.1\r\nhost: x\r\n\r\n".encode() * 2)
    async with asyncio.timeout(PATIENCE_S):
        await reader.readuntil(b"snapshot")
        await house.bid(item, 100)
        await reader.readuntil(b"event: bid")
    writer.close()
    await house.bid(item, 200)
    async with connect(ws_url(feed_stack, f"/ws/items/{item}")) as viewer:
        await receive_type(viewer, "snapshot")
    with log.open() as lines:
        lines.seek(before)
        assert [line for line in lines if " ERROR " in line or "Traceback" in line] == []
