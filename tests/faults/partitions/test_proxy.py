"""The tool itself: what a proxy that lets nothing pass does to what was sent meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from infrastructure.local.servers.ports import HOST
from tests.faults.rig.proxy import FaultyProxy
from tests.tcp import Way, serving
from tests.waiting import eventually

# Whether the end is told as a reset or not depends on what was under way.
_ENDED = (ConnectionResetError, asyncio.IncompleteReadError)


class _Shouter:
    """A server that remembers what it heard, and answers in capitals."""

    def __init__(self) -> None:
        self.heard = b""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(1_000):
            self.heard += data
            writer.write(data.upper())
            await writer.drain()


@contextlib.asynccontextmanager
async def _shouting() -> AsyncIterator[tuple[_Shouter, FaultyProxy, asyncio.StreamReader, asyncio.StreamWriter]]:
    shouter = _Shouter()
    async with serving(shouter.serve) as port, FaultyProxy(port) as proxy:
        reader, writer = await asyncio.open_connection(HOST, proxy.port)
        try:
            writer.write(b"one")
            assert await reader.readexactly(3) == b"ONE"
            yield shouter, proxy, reader, writer
        finally:
            writer.transport.abort()


async def _is_held(proxy: FaultyProxy) -> bool:
    return proxy.held > 0


@pytest.mark.parametrize(("ways", "heard"), [(("requests",), b"one"), (("answers",), b"onetwo")])
async def test_what_is_kept_arrives_when_it_heals(ways: tuple[Way, ...], heard: bytes) -> None:
    async with _shouting() as (shouter, proxy, reader, writer):
        proxy.stop(*ways)
        writer.write(b"two")
        await eventually(lambda: _is_held(proxy))
        assert shouter.heard == heard
        proxy.heal()
        assert await reader.readexactly(3) == b"TWO"
        assert shouter.heard == b"onetwo"


async def test_what_is_kept_never_arrives_where_connections_are_reset() -> None:
    async with _shouting() as (shouter, proxy, reader, writer):
        proxy.stop("requests")
        writer.write(b"two")
        await eventually(lambda: _is_held(proxy))
        proxy.heal(late=False)
        with pytest.raises(_ENDED):
            await reader.readexactly(3)
        again, writer_again = await asyncio.open_connection(HOST, proxy.port)
        writer_again.write(b"three")
        assert await again.readexactly(5) == b"THREE"
        writer_again.transport.abort()
        assert shouter.heard == b"onethree"


async def test_a_server_that_refuses_is_there_again_and_may_be_another_one() -> None:
    other = _Shouter()
    async with _shouting() as (shouter, proxy, reader, _), serving(other.serve) as port:
        proxy.refuse()
        with pytest.raises(_ENDED):
            await reader.readexactly(1)
        proxy.heal()
        proxy.lead_to(port)
        again, writer_again = await asyncio.open_connection(HOST, proxy.port)
        writer_again.write(b"three")
        assert await again.readexactly(5) == b"THREE"
        writer_again.transport.abort()
        assert (shouter.heard, other.heard) == (b"one", b"three")
