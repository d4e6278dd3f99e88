"""Many connections that send what takes work, beside one viewer: its frames come as before, and memory stays."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any, Final

import pytest
from websockets.asyncio.client import ClientConnection, connect

from broadcast_service.core.close_codes import TOO_MANY_OPERATIONS
from infrastructure.local.stack import Stack
from tests.crowds.attacks import assert_at_most_doubled
from tests.crowds.rude import Rude
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

CROWD: Final = 10
COUNT: Final = 100
PINGS: Final = b"\x89\x80\0\0\0\0" * 6_800
MESSAGES: Final = (b"\x81\x8d\0\0\0\0" + b'{"op":"ping"}') * 2_000


async def delays_of(house: AuctionHouse, viewer: ClientConnection, item: str, amounts: Iterator[int]) -> list[float]:
    """Place bids, at most 100 a second, and time each one until the viewer is shown it."""
    loop = asyncio.get_running_loop()
    sent_s: dict[int, float] = {}
    delays: list[float] = []

    async def see() -> None:
        while len(delays) < COUNT:
            frame = await receive(viewer)
            seq = frame.get("seq")
            if frame["type"] in ("bid", "state") and isinstance(seq, int):
                # A state stands for the bids before it too.
                seen = [each for each in sent_s if each <= seq]
                delays.extend(loop.time() - sent_s.pop(each) for each in seen)

    seeing = asyncio.create_task(see())
    for number in itertools.islice(amounts, COUNT):
        sent_s[number] = loop.time()
        await house.bid(item, number * 100)
        await asyncio.sleep(0.005)
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


UPGRADE: Final = (
    "GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
CHUNKED: Final = "POST /ws HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n0\r\n"
ONCE: Final = {"pieces": 1, "again_s": 0.0}
WAYS: Final[dict[str, dict[str, Any]]] = {
    "pings": {"connections": 150, "opening": UPGRADE, "is_greeted": True, "piece": PINGS.decode("latin-1"), **ONCE},
    "messages": {
        "connections": 150,
        "opening": UPGRADE,
        "is_greeted": True,
        "piece": MESSAGES.decode("latin-1"),
        **ONCE,
    },
    "many trailers": {"connections": 20, "opening": CHUNKED, "piece": "a:b\r\n" * 10_000},
}
"""What a rude client may do, as members of :class:`tests.crowds.rude.Rude`."""


@pytest.mark.parametrize("way", WAYS)
async def test_frames_are_as_fast_beside_it_and_it_takes_little_memory(
    feed_stack: Stack, house: AuctionHouse, way: str
) -> None:
    item = await house.open()
    amounts = itertools.count(1)
    async with connect(ws_url(feed_stack, f"/ws/items/{item}?feed=full")) as viewer:
        await greeted(viewer)
        clients = Rude(port=feed_stack.ports.broadcast, **WAYS[way])
        pid = feed_stack.pid(FEED)
        await assert_at_most_doubled(lambda: delays_of(house, viewer, item, amounts), clients, pid)


@pytest.mark.parametrize("flood", [PINGS, MESSAGES], ids=["pings", "messages"])
async def test_who_sends_without_end_is_told_so_and_given_up(feed_stack: Stack, flood: bytes) -> None:
    async with crowd(feed_stack.ports.broadcast) as rude:
        for _, writer in rude:
            writer.write(flood)
        code = TOO_MANY_OPERATIONS.code.to_bytes(2)
        async with asyncio.timeout(PATIENCE_S):
            for reader, _ in rude:
                await until_told(reader, code)


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
