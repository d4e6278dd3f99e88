"""The TCP servers of the tests: whenever a peer comes, nothing of it is left when the server is gone."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import warnings

import pytest

from infrastructure.local.servers.ports import HOST
from tests.tcp import serving, until_closed

# A connection goes through asyncio in a few turns of the loop: accepted, given a transport, and to us, in a task.
_TURNS = 8


async def _silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
    await reader.read()


@pytest.mark.parametrize("turns", range(_TURNS))
async def test_a_peer_that_comes_when_the_server_ends_leaves_no_socket(turns: int) -> None:
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        async with serving(_silent) as port:
            peer = socket.create_connection((HOST, port))
            for _ in range(turns):
                await asyncio.sleep(0)
        # Closed by the server or never accepted: either way at once, and not by the garbage collector.
        peer.settimeout(0)
        with peer, contextlib.suppress(ConnectionResetError):
            assert peer.recv(1) == b""
        gc.collect()
    assert [str(warning.message) for warning in warned] == []


async def test_a_handler_that_is_cancelled_while_it_closes_does_not_end_the_test() -> None:
    """A peer that reads nothing: what is buffered cannot be sent, and closing takes for ever."""
    closing = asyncio.Event()

    async def says_more_than_is_read(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"x" * 50_000_000)
        writer.close()
        closing.set()
        await until_closed(writer)

    async with serving(says_more_than_is_read) as port:
        with socket.create_connection((HOST, port)):
            await closing.wait()
            # A turn for the handler to begin to wait.
            await asyncio.sleep(0)
