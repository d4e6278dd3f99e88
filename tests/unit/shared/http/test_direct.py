"""Endpoints that are answered without ASGI: which requests come that way, and that the others lose nothing."""

from __future__ import annotations

import asyncio
import gc
import logging
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvicorn

from infrastructure.local.servers.ports import HOST
from shared.http.protocols.direct import AT_ONCE_MAX, JSON, DirectRequest, Endpoint, direct_protocol
from tests.protocols import speaking
from tests.waiting import eventually

BODY_MAX = 16
LONG_S = 600.0


class Service:
    """One endpoint, ``POST /direct``, behind which the requests wait that it was given; ASGI answers everything else
    with its method, path and body."""

    def __init__(self, answer: Callable[[DirectRequest], None] | None = None) -> None:
        self.given: list[DirectRequest] = []
        self.asgi: list[tuple[str, str, bytes]] = []
        self.endpoint = Endpoint(answer or self.given.append, BODY_MAX)

    def find(self, method: bytes, target: bytes) -> Endpoint | None:
        return self.endpoint if (method, target) == (b"POST", b"/direct") else None

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        self.asgi.append((scope["method"], scope["path"], body))
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
        await send({"type": "http.response.body", "body": b"asgi"})


@asynccontextmanager
async def connected(
    service: Service, *, timeout_s: float = LONG_S
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter, set[Any]]]:
    app: Any = service.app
    config = uvicorn.Config(app, interface="asgi3", lifespan="off", ws="none", log_config=None)
    protocol = direct_protocol(service.find, head_bytes_max=1_000, timeout_s=timeout_s)
    async with speaking(protocol, config) as (port, connections), asyncio.timeout(30):
        reader, writer = await asyncio.open_connection(HOST, port)
        yield reader, writer, connections
        writer.close()


def request(*lines: bytes, body: bytes = b"hi", target: bytes = b"/direct") -> bytes:
    head = (b"POST %b HTTP/1.1" % target, b"host: x", b"content-length: %d" % len(body), *lines)
    return b"\r\n".join((*head, b"", body))


def at_once(one: DirectRequest) -> None:
    one.answer(201, JSON, b'"%b"' % one.body)


async def test_a_request_is_answered_at_once_or_later() -> None:
    service = Service()
    async with connected(service) as (reader, writer, _):
        for status in (201, 422):
            writer.write(request(b"X-Key: 7"))
            await eventually(lambda: bool(service.given))
            one = service.given.pop()
            assert (one.body, dict(one.headers)[b"x-key"], one.target) == (b"hi", b"7", b"/direct")
            one.answer(status, JSON, b"{}")
            head, _, _ = (await reader.readuntil(b"{}")).partition(b"\r\n\r\n")
            assert head.startswith(b"HTTP/1.1 %d " % status)
            assert b"content-type: application/json\r\ncontent-length: 2" in head
    assert not service.asgi


async def test_a_body_that_comes_in_pieces_is_whole() -> None:
    service = Service(at_once)
    async with connected(service) as (reader, writer, _):
        for piece in (request(body=b"")[:-5] + b"6\r\n\r\nab", b"cd", b"ef"):
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0.01)
        assert (await reader.readuntil(b"ef")).endswith(b'"abcdef')


@pytest.mark.parametrize(
    "sent",
    [
        request(b"expect: 100-continue"),
        request(b"connection: close"),
        request().replace(b"HTTP/1.1", b"HTTP/1.0"),
        request(b"connection: keep-alive").replace(b"HTTP/1.1", b"HTTP/1.0"),
        request(b"proxy-connection: keep-alive").replace(b"HTTP/1.1", b"HTTP/1.0"),
        request(b"x-key: 1", b"x-key: 2"),
        request(body=b"a" * (BODY_MAX + 1)),
        request(target=b"/other"),
        request().replace(b"content-length: 2", b"content-length: %b2" % (b"0" * 500)),
        b"POST /direct HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
    ],
    ids=[
        "expect",
        "close",
        "HTTP/1.0",
        "HTTP/1.0 kept",
        "kept for a proxy",
        "a header twice",
        "large",
        "another target",
        "a long length",
        "chunked",
    ],
)
async def test_what_is_not_plain_is_for_the_application(sent: bytes) -> None:
    service = Service(at_once)
    async with connected(service) as (reader, writer, _):
        writer.write(sent)
        await reader.readuntil(b"asgi")
        target = "/other" if b"/other" in sent else "/direct"
        assert service.asgi == [("POST", target, b"a" * (BODY_MAX + 1) if b"aaa" in sent else b"hi")]


async def test_a_wish_for_a_protocol_that_nobody_speaks_costs_no_body() -> None:
    """Clients in Java ask for h2c with their first request."""
    async with connected(Service(at_once)) as (reader, writer, _):
        writer.write(request(b"connection: upgrade, http2-settings", b"upgrade: h2c"))
        assert (await reader.readuntil(b'"hi"')).startswith(b"HTTP/1.1 201 ")


async def test_requests_that_come_together_are_answered_in_their_order() -> None:
    service = Service()
    async with connected(service) as (reader, writer, _):
        writer.write(request(body=b"1") + request(body=b"2") + request(target=b"/other", body=b"3"))
        await eventually(lambda: bool(service.given))
        await asyncio.sleep(0.05)
        assert not service.asgi, "the first one has no answer yet"
        service.given[0].answer(200, JSON, b"first")
        answers = await reader.readuntil(b"asgi") + await reader.readuntil(b"asgi")
        assert answers.index(b"first") < answers.index(b"asgi")
        assert [body for *_, body in service.asgi] == [b"2", b"3"]

        # The connection is free again.
        writer.write(request(body=b"4"))
        await eventually(lambda: len(service.given) == 2)


async def test_of_many_that_are_answered_at_once_each_has_its_answer() -> None:
    service = Service(at_once)
    async with connected(service) as (reader, writer, _):
        writer.write(b"".join(request(body=b"%03d" % number) for number in range(AT_ONCE_MAX)))
        for number in range(AT_ONCE_MAX):
            assert (await reader.readuntil(b'"%03d"' % number)).startswith(b"HTTP/1.1 201 ")
    assert not service.asgi


async def test_who_sends_thousands_in_one_packet_holds_up_nobody() -> None:
    """Answered at once, they would all be answered in one turn of the loop."""
    answered: list[DirectRequest] = []

    def count(one: DirectRequest) -> None:
        answered.append(one)
        one.answer(200, JSON, b"")

    service = Service(count)
    async with connected(service) as (reader, _, connections):
        await eventually(lambda: bool(connections))
        protocol = next(iter(connections))
        protocol.data_received(request(body=b"7") * 2_000)
        assert len(answered) == AT_ONCE_MAX
        for _ in range(2_000):
            await reader.readuntil(b"\r\n\r\n")
    assert len(answered) + len(service.asgi) == 2_000


async def test_an_answer_for_nobody_is_dropped() -> None:
    service = Service()
    async with connected(service) as (_, writer, connections):
        writer.write(request())
        await eventually(lambda: bool(service.given))
        writer.close()
        await eventually(lambda: not connections)
        service.given[0].answer(200, JSON, b"{}")
    assert service.given[0].disconnected


async def test_of_a_request_whose_client_has_gone_the_head_does_not_stay() -> None:
    """Some wait for their turn to be answered, in bounded number. A head is the most that a client can make of one."""
    service = Service()
    async with connected(service) as (_, writer, connections):
        writer.write(request(b"X-Long: " + b"x" * 500))
        await eventually(lambda: bool(service.given))
        writer.transport.abort()
        await eventually(lambda: not connections)
        (one,) = service.given
        assert one.is_gone
        assert (one.body, dict(one.headers), one._protocol.headers) == (b"", {}, [])


async def test_of_a_closed_connection_nothing_stays() -> None:
    """Not until the garbage is collected, which is seldom here."""
    service = Service(at_once)
    gc.disable()
    try:
        async with connected(service) as (reader, writer, connections):
            writer.write(request())
            await reader.readuntil(b'"hi"')
            protocol = weakref.ref(next(iter(connections)))
            kept = protocol().cycle  # type: ignore[union-attr]
            assert (kept.body, kept.headers) == (b"", {})
            del kept
            writer.close()
            await eventually(lambda: not connections)
            await eventually(lambda: protocol() is None)
            assert protocol() is None
    finally:
        gc.enable()


async def test_a_connection_that_waits_for_an_answer_is_not_idle() -> None:
    """Also where another request of the same read was answered at once."""
    service = Service()

    def first_at_once(one: DirectRequest) -> None:
        service.given.append(one)
        if len(service.given) == 1:
            one.answer(200, JSON, b"first")

    service.endpoint = Endpoint(first_at_once, BODY_MAX)
    async with connected(service) as (reader, writer, connections):
        await eventually(lambda: bool(connections))
        next(iter(connections)).timeout_keep_alive = 0.1
        writer.write(request() + request())
        await reader.readuntil(b"first")
        await asyncio.sleep(0.5)
        service.given[1].answer(200, JSON, b"second")
        await reader.readuntil(b"second")


async def test_nobody_is_answered_twice() -> None:
    def twice(one: DirectRequest) -> None:
        one.answer(200, JSON, b"first")
        one.answer(200, JSON, b"second")

    async with connected(Service(twice)) as (reader, writer, _):
        writer.write(request() + request())
        answers = await reader.readuntil(b"first") + await reader.readuntil(b"first")
        assert b"second" not in answers


async def test_a_fault_of_the_endpoint_is_a_500(caplog: pytest.LogCaptureFixture) -> None:
    def fail(_: DirectRequest) -> None:
        raise RuntimeError("out of order")

    async with connected(Service(fail)) as (reader, writer, _):
        with caplog.at_level(logging.ERROR):
            writer.write(request())
            answer = await reader.readuntil(b"}")
    assert answer.startswith(b"HTTP/1.1 500 ")
    assert b"INTERNAL_ERROR" in answer
    assert "out of order" in caplog.text


@pytest.mark.parametrize(
    ("sent", "status"),
    [
        (request(b"host: y"), b"400"),
        (request().replace(b"host: x\r\n", b""), b"400"),
        (request(b"x: " + b"a" * 20_000), b"431"),
        (request()[:-1], b"408"),
    ],
    ids=["two hosts", "no host", "large head", "slow body"],
)
async def test_its_bounds_hold(sent: bytes, status: bytes) -> None:
    service = Service()
    async with connected(service, timeout_s=0.2) as (reader, writer, connections):
        writer.write(sent)
        assert (await reader.read()).startswith(b"HTTP/1.1 " + status)
        await eventually(lambda: not connections)
    assert not service.given


async def test_at_shutdown_what_was_asked_is_answered_and_then_the_connection_is_closed() -> None:
    service = Service()
    async with connected(service) as (reader, writer, connections):
        writer.write(request())
        await eventually(lambda: bool(service.given))
        next(iter(connections)).shutdown()
        service.given[0].answer(200, JSON, b"{}")
        answer = await reader.read()
    assert b"connection: close\r\n" in answer
    assert answer.endswith(b"{}")


async def test_a_client_that_reads_nothing_goes_to_the_application_which_waits_for_it() -> None:
    service = Service()
    async with connected(service) as (reader, writer, connections):
        writer.write(request())
        await eventually(lambda: bool(service.given))
        protocol = next(iter(connections))
        service.given[0].answer(200, JSON, b"first")
        await reader.readuntil(b"first")
        protocol.pause_writing()
        writer.write(request())
        await eventually(lambda: bool(service.asgi))
        protocol.resume_writing()
        await reader.readuntil(b"asgi")
    assert len(service.given) == 1


async def test_every_answer_has_the_headers_of_the_server() -> None:
    async with connected(Service(at_once)) as (reader, writer, connections):
        await eventually(lambda: bool(connections))
        state = next(iter(connections)).server_state
        for date in (b"one", b"two"):
            state.default_headers = [(b"date", date)]
            writer.write(request())
            head = await reader.readuntil(b"\r\n\r\n")
            assert b"\r\ndate: %b\r\n" % date in head
            await reader.readexactly(4)
