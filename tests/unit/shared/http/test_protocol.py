"""How long a connection stays over which nothing is under way, in each of the services."""

from __future__ import annotations

import asyncio
import gc
import socket
import struct
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI
from uvicorn.server import ServerState

from api_gateway.http_protocol import bounded_protocol
from archival_worker.http import make_server
from broadcast_service.transport.streams import http_protocol_class
from infrastructure.local.servers.ports import HOST
from shared.http.protocol import IdleHttpProtocol
from tests.waiting import eventually

QUICK_S = 0.2
LONG_S = 600.0
RESET = struct.pack("ii", 1, 0)
"""For SO_LINGER: closing resets the connection."""
LARGE = b"a" * 16 * 1024**2

PROTOCOLS = {
    "gateway": bounded_protocol(head_bytes_max=1_000, timeout_s=LONG_S),
    "feed": http_protocol_class(send_buffer_bytes=0, head_timeout_s=LONG_S),
    "archiver": IdleHttpProtocol,
}
GET = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"


async def answer_at_once(scope: Any, _: Any, send: Any) -> None:
    body = LARGE if scope["path"] == "/large" else b"ok"
    length = (b"content-length", b"%d" % len(body))
    await send({"type": "http.response.start", "status": 200, "headers": [length]})
    await send({"type": "http.response.body", "body": body})


@asynccontextmanager
async def serving(protocol: type[Any], *, keep_alive_s: float) -> AsyncIterator[tuple[int, set[Any]]]:
    """A server of this protocol: its port, and its connections."""
    config: Any = uvicorn.Config(answer_at_once, lifespan="off", ws="none", log_config=None)
    config.timeout_keep_alive = keep_alive_s
    state = ServerState()
    connections: set[Any] = state.connections

    def make() -> Any:
        return protocol(config=config, server_state=state, app_state={})

    server = await asyncio.get_running_loop().create_server(make, HOST, 0)
    try:
        yield server.sockets[0].getsockname()[1], connections
    finally:
        server.close()
        for connection in list(connections):
            connection.transport.abort()
        await eventually(_is_empty(connections))


def _is_empty(connections: set[Any]) -> Callable[[], Awaitable[bool]]:
    async def is_empty() -> bool:
        return not connections

    return is_empty


def test_the_archiver_speaks_it() -> None:
    assert make_server(FastAPI()).config.http is IdleHttpProtocol


@pytest.mark.parametrize("service", PROTOCOLS)
@pytest.mark.parametrize(
    ("request_", "later"),
    [
        (GET, b""),
        (GET, b"\r\n"),
        (b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n", b"12"),
        (b"", b""),
        (b"", b"GET / HT"),
    ],
    ids=["nothing", "a line break", "a part of a body", "nothing ever", "half a head"],
)
async def test_a_client_that_goes_silent_is_hung_up_on(service: str, request_: bytes, later: bytes) -> None:
    async with serving(PROTOCOLS[service], keep_alive_s=QUICK_S) as (port, _):
        reader, writer = await asyncio.open_connection(HOST, port)
        writer.write(request_)
        if request_:
            assert b"200 OK" in await reader.readuntil(b"\r\n\r\nok")
        writer.write(later)
        async with asyncio.timeout(10):
            await reader.read()
        writer.close()


@pytest.mark.parametrize("service", PROTOCOLS)
async def test_a_client_that_never_takes_its_answer_is_cut_off(service: str) -> None:
    async with serving(PROTOCOLS[service], keep_alive_s=QUICK_S) as (port, connections):
        with socket.create_connection((HOST, port)) as client:
            client.send(GET.replace(b"/", b"/large", 1))

            async def is_answered() -> bool:
                return any(each.cycle is not None and each.cycle.response_complete for each in connections)

            await eventually(is_answered)
            await eventually(_is_empty(connections))


@pytest.mark.parametrize("service", PROTOCOLS)
async def test_of_a_connection_that_was_reset_nothing_stays(service: str) -> None:
    async with serving(PROTOCOLS[service], keep_alive_s=LONG_S) as (port, connections):
        reader, writer = await asyncio.open_connection(HOST, port)
        writer.write(GET)
        await reader.readuntil(b"\r\n\r\nok")
        gone = weakref.ref(next(iter(connections)))
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        writer.transport.abort()

        async def is_gone() -> bool:
            gc.collect()
            return gone() is None

        await eventually(is_gone)
