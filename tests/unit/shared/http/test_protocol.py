"""How long a connection stays over which nothing is under way, in each of the services."""

from __future__ import annotations

import asyncio
import gc
import socket
import struct
import weakref
from contextlib import AbstractAsyncContextManager
from typing import Any

import pytest
import uvicorn
from fastapi import FastAPI

from archival_worker.http import make_server
from broadcast_service.transport.streams import http_protocol_class
from infrastructure.local.servers.ports import HOST
from shared.http.protocols.bounded import BoundedHttpProtocol, bounded_protocol
from shared.http.protocols.direct import direct_protocol
from tests.protocols import speaking
from tests.waiting import eventually

QUICK_S = 0.2
LONG_S = 600.0
RESET = struct.pack("ii", 1, 0)
"""For SO_LINGER: closing resets the connection."""
LARGE = b"a" * 16 * 1024**2

PROTOCOLS = {
    "gateway": bounded_protocol(head_bytes_max=1_000, timeout_s=LONG_S),
    "feed": http_protocol_class(send_buffer_bytes=0, head_timeout_s=LONG_S),
    "archiver": BoundedHttpProtocol,
    "direct": direct_protocol(lambda method, target: None, head_bytes_max=1_000, timeout_s=LONG_S),
}
GET = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n"


async def answer_at_once(scope: Any, _: Any, send: Any) -> None:
    body = LARGE if scope["path"] == "/large" else b"ok"
    length = (b"content-length", b"%d" % len(body))
    await send({"type": "http.response.start", "status": 200, "headers": [length]})
    await send({"type": "http.response.body", "body": body})


async def wait_for_the_body(scope: Any, receive: Any, send: Any) -> None:
    while (await receive()).get("more_body"):
        pass


def serving(
    protocol: type[Any], *, keep_alive_s: float, app: Any = answer_at_once
) -> AbstractAsyncContextManager[tuple[int, set[Any]]]:
    """A server of this protocol: its port, and its connections."""
    config: Any = uvicorn.Config(app, lifespan="off", ws="none", log_config=None)
    config.timeout_keep_alive = keep_alive_s
    return speaking(protocol, config)


def test_the_archiver_speaks_it() -> None:
    assert make_server(FastAPI()).config.http is BoundedHttpProtocol


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
@pytest.mark.parametrize(
    ("pieces", "status", "code"),
    [
        ((GET[:-2], b"x-filler: " + b"a" * 20_000, b"a"), b"431", b"HEAD_TOO_LARGE"),
        ((GET[:-2], b"x"), b"408", b"HEAD_TOO_SLOW"),
        ((GET[:-2] + b"content-length: 9\r\n\r\n", b"x"), b"408", b"BODY_TOO_SLOW"),
        ((GET[:-2] + b"host: y\r\n\r\n",), b"400", b"BAD_REQUEST"),
        ((b"GET / HTTP/1.1\r\n\r\n",), b"400", b"BAD_REQUEST"),
        ((b"\0",), b"400", b"BAD_REQUEST"),
    ],
    ids=["large head", "slow head", "slow body", "two hosts", "no host", "no HTTP"],
)
async def test_what_arrives_without_end_or_sense_is_refused(
    service: str, pieces: tuple[bytes, ...], status: bytes, code: bytes
) -> None:
    quick = type("Quick", (PROTOCOLS[service],), {"timeout_s": QUICK_S})
    async with serving(quick, keep_alive_s=LONG_S, app=wait_for_the_body) as (port, connections):
        reader, writer = await asyncio.open_connection(HOST, port)
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.01)
        async with asyncio.timeout(10):
            answer = await reader.read()
        writer.close()
        assert answer.startswith(b"HTTP/1.1 " + status)
        assert code in answer
        await eventually(lambda: not connections)


async def test_an_upload_may_take_longer_and_its_head_may_not() -> None:
    settings = {"timeout_s": QUICK_S, "patient_targets": frozenset({b"/upload"}), "patient_s": 3.0}
    patient = type("Patient", (PROTOCOLS["direct"],), settings)
    head = b"POST %b HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n"

    async def refused_after_s(request: bytes) -> float:
        reader, writer = await asyncio.open_connection(HOST, port)
        began_s = asyncio.get_running_loop().time()
        writer.write(request)
        async with asyncio.timeout(10):
            assert (await reader.read()).startswith(b"HTTP/1.1 408")
        writer.close()
        return asyncio.get_running_loop().time() - began_s

    async with serving(patient, keep_alive_s=LONG_S, app=wait_for_the_body) as (port, _):
        requests = [
            head % b"/upload" + b"\r\nx",
            head % b"/upload",
            head % b"/other" + b"\r\nx",
            head % b"/upload?x" + b"\r\nx",
        ]
        upload_s, *others_s = await asyncio.gather(*map(refused_after_s, requests))
    assert upload_s >= 3.0
    assert max(others_s) < 3.0


@pytest.mark.parametrize("service", PROTOCOLS)
async def test_a_client_that_takes_its_time_between_requests_is_left_alone(service: str) -> None:
    quick = type("Quick", (PROTOCOLS[service],), {"timeout_s": QUICK_S})
    async with serving(quick, keep_alive_s=LONG_S) as (port, _):
        reader, writer = await asyncio.open_connection(HOST, port)
        for _ in range(2):
            writer.write(GET)
            assert b"200 OK" in await reader.readuntil(b"\r\n\r\nok")
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(1.5):
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
            await eventually(lambda: not connections)


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
