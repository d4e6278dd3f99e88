"""Clients that never end what they send: answered, closed, and without a trace in memory."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import psutil
import pytest
import pytest_asyncio

from infrastructure.local.services import API_GATEWAY
from infrastructure.local.stack import Stack
from tests.stack import StackFactory

pytestmark = pytest.mark.asyncio(loop_scope="module")

BID = b"POST /api/v1/items/slow/bid HTTP/1.1\r\nhost: x\r\n"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def stack() -> AsyncIterator[Stack]:
    factory = StackFactory()
    try:
        yield await factory(services=(API_GATEWAY,), env={"BODY_TIMEOUT_S": "1.5"})
    finally:
        await factory.close()


async def _answer(stack: Stack, start: bytes, more: bytes, *, pause_s: float, bytes_max: int) -> bytes:
    """Send ``start``, then ``more`` again and again until the server closes; what it answered."""
    reader, writer = await asyncio.open_connection("127.0.0.1", stack.ports.gateway)
    reading = asyncio.create_task(_until_the_end(reader))
    sent = 0
    try:
        writer.write(start)
        while not reading.done() and sent < bytes_max:
            writer.write(more)
            sent += len(more)
            await writer.drain()
            await asyncio.sleep(pause_s)
    except (ConnectionError, BrokenPipeError):
        pass
    try:
        async with asyncio.timeout(10):
            return await reading
    finally:
        writer.transport.abort()


async def _until_the_end(reader: asyncio.StreamReader) -> bytes:
    """An answer may come in pieces, and a reset after it."""
    answer = b""
    with contextlib.suppress(ConnectionError):
        while piece := await reader.read(65_536):
            answer += piece
    return answer


async def test_headers_that_never_end_are_cut_off(stack: Stack) -> None:
    gateway = psutil.Process(stack.pid(API_GATEWAY))
    before = gateway.memory_info().rss
    answers = await asyncio.gather(
        *(_answer(stack, BID, b"x-filler: " + b"a" * 60_000, pause_s=0.0, bytes_max=20_000_000) for _ in range(20))
    )
    # Whoever is still sending when the connection is closed may lose the answer over the reset.
    assert all(answer == b"" or b" 431 " in answer for answer in answers)
    assert gateway.memory_info().rss - before < 30_000_000


async def test_a_head_that_is_too_large_is_told_so(stack: Stack) -> None:
    answer = await _answer(stack, BID, b"x-filler: " + b"a" * 20_000, pause_s=0.1, bytes_max=60_000)
    assert b" 431 " in answer
    assert b"HEAD_TOO_LARGE" in answer


async def test_headers_that_trickle_are_timed_out(stack: Stack) -> None:
    answer = await _answer(stack, BID, b"x", pause_s=0.1, bytes_max=200)
    assert b" 408 " in answer
    assert b"HEAD_TOO_SLOW" in answer


async def test_a_connection_that_says_nothing_is_closed(stack: Stack) -> None:
    answer = await _answer(stack, b"", b"", pause_s=0.1, bytes_max=1)
    assert b" 408 " in answer


async def test_a_body_that_trickles_is_timed_out(stack: Stack) -> None:
    heads = [
        b"POST " + path + b" HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n"
        for path in (b"/api/v1/items/slow/bid", b"/api/v1/items")
    ]
    answers = await asyncio.gather(*(_answer(stack, head, b" ", pause_s=0.1, bytes_max=200) for head in heads))
    for answer in answers:
        assert b" 408 " in answer
        assert b"BODY_TOO_SLOW" in answer


async def test_trailers_that_never_end_are_cut_off(stack: Stack) -> None:
    gateway = psutil.Process(stack.pid(API_GATEWAY))
    before = gateway.memory_info().rss
    head = BID + b"transfer-encoding: chunked\r\n\r\n0\r\n"
    for more in (b"a:b\r\n" * 10_000, b"a" * 60_000):
        answer = await _answer(stack, head, more, pause_s=0.0, bytes_max=60_000_000)
        assert answer == b"" or b" 431 " in answer
    answer = await _answer(stack, head, b"authorization: x\r\n", pause_s=0.05, bytes_max=2_000)
    assert b" 408 " in answer
    assert gateway.memory_info().rss - before < 30_000_000


async def test_an_endless_chunked_body_is_cut_off(stack: Stack) -> None:
    gateway = psutil.Process(stack.pid(API_GATEWAY))
    before = gateway.memory_info().rss
    chunk = b"10000\r\n" + b"x" * 0x10000 + b"\r\n"
    for path in (b"/api/v1/items/slow/bid", b"/api/v1/items"):
        head = b"POST " + path + b" HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
        answer = await _answer(stack, head, chunk, pause_s=0.0, bytes_max=60_000_000)
        assert b" 413 " in answer
    assert gateway.memory_info().rss - before < 30_000_000
