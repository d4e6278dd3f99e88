"""A hop delays every byte and slows nothing down; real sockets on loopback."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from load_tests.network import delay_line
from load_tests.network.delay_line import HOST, serve
from tests.waiting import eventually

DELAY_S = 0.05


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(65_536):
        writer.write(data)
        await writer.drain()
    writer.close()


@pytest_asyncio.fixture
async def hop() -> AsyncIterator[int]:
    echo = await asyncio.start_server(_echo, HOST, 0)
    hops = await serve(DELAY_S, [echo.sockets[0].getsockname()[1]])
    yield hops.ports[0]
    # Whoever hangs up, both ends of the hop end.
    await eventually(lambda: not hops.ends, seconds=10)
    hops.close()
    echo.close()


async def test_a_round_trip_takes_the_delay_twice_however_much_is_under_way(hop: int) -> None:
    reader, writer = await asyncio.open_connection(HOST, hop)
    began_s = time.monotonic()
    for _ in range(20):
        writer.write(b"x" * 1_000)
        # Separate chunks: a proxy that sleeps for each would need 20 times the delay.
        await asyncio.sleep(0.002)
    assert len(await reader.readexactly(20_000)) == 20_000
    took_s = time.monotonic() - began_s
    writer.close()
    await writer.wait_closed()
    assert 2 * DELAY_S <= took_s < 8 * DELAY_S


async def test_nothing_is_lost_or_reordered(hop: int) -> None:
    sent = b"".join(number.to_bytes(4, "big") for number in range(200_000))
    reader, writer = await asyncio.open_connection(HOST, hop)
    writer.write(sent)
    got = await reader.readexactly(len(sent))
    writer.close()
    await writer.wait_closed()
    assert got == sent


async def test_the_end_of_a_connection_comes_late_too(hop: int) -> None:
    reader, writer = await asyncio.open_connection(HOST, hop)
    writer.write(b"bye")
    assert await reader.readexactly(3) == b"bye"
    began_s = time.monotonic()
    writer.write_eof()
    assert await reader.read() == b""
    assert time.monotonic() - began_s >= DELAY_S
    writer.close()
    await writer.wait_closed()


async def test_what_nobody_reads_is_bounded_and_its_sender_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delay_line, "UNDER_WAY_MAX", 1_000_000)
    may_read, got = asyncio.Event(), asyncio.get_running_loop().create_future()

    async def deaf(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await may_read.wait()
        got.set_result(await reader.read(-1))
        writer.close()

    server = await asyncio.start_server(deaf, HOST, 0)
    hops = await serve(0.001, [server.sockets[0].getsockname()[1]])
    _, writer = await asyncio.open_connection(HOST, hops.ports[0])
    sent = bytes(range(256)) * 200_000
    writer.write(sent)
    writer.write_eof()
    left = 0

    def nothing_moves() -> bool:
        nonlocal left
        before, left = left, writer.transport.get_write_buffer_size()
        # Neither end has more than it may, at any moment.
        for end in hops.ends:
            assert end.transport is not None
            assert end.transport.get_write_buffer_size() < 1_000_000
        return left == before > 0

    await eventually(nothing_moves, "the sender waits", seconds=60)
    may_read.set()
    assert await asyncio.wait_for(got, 60) == sent
    writer.close()
    await eventually(lambda: not hops.ends, seconds=10)
    hops.close()
    server.close()
