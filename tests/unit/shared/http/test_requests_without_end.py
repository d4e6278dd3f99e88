"""Requests that go on without end behind their head: trailers, and more requests than are answered."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from typing import Any

import psutil
import pytest

from infrastructure.local.servers.ports import HOST
from shared.http.protocols import counted
from tests.unit.shared.http.test_protocol import GET, LONG_S, PROTOCOLS, QUICK_S, serving, wait_for_the_body
from tests.waiting import eventually

CHUNKED = b"POST / HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\n{}"
WAITING_MOST = 100
"""Requests of one connection that may wait: 16, and those of the kilobyte that is parsed at once."""
GROWS_MOST_BYTES = 40_000_000

every_service = pytest.mark.parametrize("service", PROTOCOLS)


async def tell(scope: Any, receive: Any, send: Any) -> None:
    """Answer with the path and what the request's fields are called."""
    while (await receive()).get("more_body"):
        pass
    fields = b" ".join(name for name, _ in scope["headers"])
    body = b"%b %b\n" % (scope["path"].encode(), fields)
    length = (b"content-length", b"%d" % len(body))
    await send({"type": "http.response.start", "status": 200, "headers": [length]})
    await send({"type": "http.response.body", "body": body})


class Slow:
    """Answers only what it is let."""

    def __init__(self) -> None:
        self.let = asyncio.Semaphore(0)
        self.asked = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.asked += 1
        await self.let.acquire()
        await tell(scope, receive, send)


async def send_all(writer: asyncio.StreamWriter, piece: bytes, bytes_max: int) -> int:
    """Send a piece again and again, until so many bytes are sent, the server takes no more, or hangs up."""
    sent = 0
    with contextlib.suppress(ConnectionError, TimeoutError):
        while sent < bytes_max:
            writer.write(piece)
            sent += len(piece)
            async with asyncio.timeout(0.3):
                await writer.drain()
    return sent


async def answer_of(reader: asyncio.StreamReader) -> bytes:
    answer = b""
    with contextlib.suppress(ConnectionError):
        async with asyncio.timeout(10):
            while piece := await reader.read(65_536):
                answer += piece
    return answer


@every_service
@pytest.mark.parametrize(
    "piece",
    [b"a:b\r\n" * 5_000, b"a: " + b"b" * 20_000, b"a" * 20_000],
    ids=["many trailers", "a long one", "a long name"],
)
async def test_trailers_without_end_are_refused(service: str, piece: bytes) -> None:
    before = psutil.Process(os.getpid()).memory_info().rss
    async with serving(PROTOCOLS[service], keep_alive_s=LONG_S, app=wait_for_the_body) as (port, _):
        reader, writer = await asyncio.open_connection(HOST, port)
        reading = asyncio.create_task(answer_of(reader))
        writer.write(CHUNKED + b"0\r\n")
        await writer.drain()
        await asyncio.sleep(0.05)
        sent = await send_all(writer, piece, 30_000_000)
        answer = await reading
        writer.transport.abort()
    # Whoever is still sending when the connection is closed may lose the answer over the reset.
    assert answer == b"" or (answer.startswith(b"HTTP/1.1 431 ") and b"HEAD_TOO_LARGE" in answer)
    assert sent < 30_000_000
    assert psutil.Process(os.getpid()).memory_info().rss - before < GROWS_MOST_BYTES


@every_service
async def test_trailers_past_the_bound_are_told_so(service: str) -> None:
    async with serving(PROTOCOLS[service], keep_alive_s=LONG_S, app=wait_for_the_body) as (port, _):
        for trailers in (b"a:b\r\n" * 5_000, b"a: " + b"b" * 20_000):
            reader, writer = await asyncio.open_connection(HOST, port)
            writer.write(CHUNKED + b"2\r\n{}\r\n0\r\n")
            await writer.drain()
            await asyncio.sleep(0.05)
            writer.write(trailers)
            answer = await answer_of(reader)
            writer.close()
            assert answer.startswith(b"HTTP/1.1 431 ")
            assert b"HEAD_TOO_LARGE" in answer


@every_service
async def test_trailers_that_trickle_are_timed_out(service: str) -> None:
    quick = type("Quick", (PROTOCOLS[service],), {"timeout_s": QUICK_S})
    async with serving(quick, keep_alive_s=LONG_S, app=wait_for_the_body) as (port, _):
        reader, writer = await asyncio.open_connection(HOST, port)
        writer.write(CHUNKED + b"0\r\n")
        reading = asyncio.create_task(answer_of(reader))
        while not reading.done():
            writer.write(b"a:b\r\n")
            await asyncio.sleep(0.05)
        writer.close()
        answer = await reading
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b"BODY_TOO_SLOW" in answer


@every_service
async def test_trailers_do_not_become_headers(service: str) -> None:
    """Whoever checks the head must not be shown another one afterwards."""
    sent = CHUNKED + b"2\r\n{}\r\n0\r\nauthorization: forged\r\nidempotency-key: forged\r\nhost: y\r\n\r\n"
    async with serving(PROTOCOLS[service], keep_alive_s=LONG_S, app=tell) as (port, _):
        for pieces in ((sent, b""), (sent[: len(CHUNKED)], sent[len(CHUNKED) :])):
            reader, writer = await asyncio.open_connection(HOST, port)
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(0.05)
            writer.write(GET)
            async with asyncio.timeout(10):
                assert await reader.readuntil(b"/ host transfer-encoding\n")
                assert await reader.readuntil(b"/ host\n")
            writer.close()


@every_service
async def test_a_body_in_many_chunks_is_no_trailer(service: str) -> None:
    """However small or large its chunks are, and wherever they are cut."""
    async with serving(PROTOCOLS[service], keep_alive_s=LONG_S, app=tell) as (port, _):
        reader, writer = await asyncio.open_connection(HOST, port)
        body = b"1\r\nx\r\n" * 8_000 + b"8000\r\n" + b"y" * 0x8000 + b"\r\n0\r\n\r\n"
        sent = CHUNKED + body
        for start in range(0, len(sent), 5_003):
            writer.write(sent[start : start + 5_003])
            await writer.drain()
            await asyncio.sleep(0)
        async with asyncio.timeout(10):
            assert b" 200 " in await reader.readuntil(b"/ host transfer-encoding\n")
        writer.close()


@every_service
@pytest.mark.parametrize("coding", [b"gzip, chunked", b"gzip,chunked", b"x\r\ntransfer-encoding: chunked", b"deflate"])
async def test_another_coding_than_chunked_is_not_implemented(service: str, coding: bytes) -> None:
    """RFC 9112, section 6.1. The parser takes the last coding for the only one: a compressed body would be read as it
    is."""
    async with serving(PROTOCOLS[service], keep_alive_s=LONG_S, app=tell) as (port, _):
        reader, writer = await asyncio.open_connection(HOST, port)
        writer.write(CHUNKED.replace(b"chunked", coding) + b"0\r\n\r\n")
        answer = await answer_of(reader)
        writer.close()
        assert answer.count(b"HTTP/1.1 ") == 1
        if coding == b"deflate":  # the end of such a body cannot be known, so the parser is asked no further
            assert answer.startswith((b"HTTP/1.1 400 ", b"HTTP/1.1 501 "))
        else:
            assert answer.startswith(b"HTTP/1.1 501 ")
            assert b"NOT_IMPLEMENTED" in answer


@every_service
@pytest.mark.parametrize("coding", [b"Chunked", b"chunked ", b"chunked,"])
async def test_chunked_is_heard_however_it_is_spelt(service: str, coding: bytes) -> None:
    async with serving(PROTOCOLS[service], keep_alive_s=LONG_S, app=tell) as (port, _):
        reader, writer = await asyncio.open_connection(HOST, port)
        writer.write(CHUNKED.replace(b"chunked", coding) + b"0\r\n\r\n")
        async with asyncio.timeout(10):
            assert (await reader.readline()).startswith((b"HTTP/1.1 200 ", b"HTTP/1.1 400 "))
        writer.close()


# ------------------------------------------------------------------------------------- more than one request at once


@every_service
@pytest.mark.parametrize("request_", [GET, POST], ids=["GET", "POST"])
async def test_requests_that_wait_are_bounded(service: str, request_: bytes) -> None:
    """A client sends whole requests and never reads: few of them wait here, the others in the client."""
    app = Slow()
    before = psutil.Process(os.getpid()).memory_info().rss
    async with serving(PROTOCOLS[service], keep_alive_s=LONG_S, app=app) as (port, connections):
        _, writer = await asyncio.open_connection(HOST, port)
        sent = await send_all(writer, request_ * 2_000, 60_000_000)
        (connection,) = connections
        assert len(connection.pipeline) < WAITING_MOST
        # Also where some are answered, so that the server reads on.
        for _ in range(200):
            app.let.release()
        await send_all(writer, request_ * 2_000, 10_000_000)
        assert len(connection.pipeline) < WAITING_MOST
        writer.transport.abort()
        for _ in range(1_000):
            app.let.release()
    assert sent < 60_000_000, "the server reads without end"
    assert psutil.Process(os.getpid()).memory_info().rss - before < GROWS_MOST_BYTES


@every_service
async def test_however_many_come_at_once_all_are_answered_in_their_order(service: str) -> None:
    async with serving(PROTOCOLS[service], keep_alive_s=LONG_S, app=tell) as (port, _):
        reader, writer = await asyncio.open_connection(HOST, port)
        numbers = range(3_000)
        posts = (b"POST /%d HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\n\r\nabc" % n for n in numbers)
        gets = (b"GET /%d HTTP/1.1\r\nhost: x\r\n\r\n" % n for n in numbers)
        writer.write(b"".join(get + post for get, post in zip(gets, posts, strict=True)))
        async with asyncio.timeout(30):
            for n in numbers:
                assert (await reader.readuntil(b"host\n")).endswith(b"\r\n\r\n/%d host\n" % n)
                assert (await reader.readuntil(b"length\n")).endswith(b"\r\n\r\n/%d host content-length\n" % n)
        writer.close()


@every_service
async def test_a_request_whose_rest_waits_is_not_too_slow(service: str) -> None:
    """Its rest has come, or could; it is the server that does not read it yet."""
    app = Slow()
    quick = type("Quick", (PROTOCOLS[service],), {"timeout_s": QUICK_S})
    async with serving(quick, keep_alive_s=LONG_S, app=app) as (port, _):
        reader, writer = await asyncio.open_connection(HOST, port)
        writer.write(POST * 300)
        await asyncio.sleep(2.5)
        for _ in range(300):
            app.let.release()
        async with asyncio.timeout(30):
            for _ in range(300):
                assert b" 200 " in await reader.readuntil(b"length\n")
        writer.close()


# -------------------------------------------------------------------------------------------- whose answer is it


@every_service
@pytest.mark.parametrize(
    "after",
    [
        b"CONNECT h:443 HTTP/1.1\r\nhost: x\r\n\r\n",
        b"GET http://[::1 HTTP/1.1\r\nhost: x\r\n\r\n",
        CHUNKED.replace(b"chunked", b"gzip, chunked"),
        b"GET / HTTP/1.1\r\nhost: a b\r\n\r\n",
    ],
    ids=["CONNECT", "no URL", "another coding", "no host"],
)
async def test_a_request_keeps_its_answer_whatever_is_behind_it(service: str, after: bytes) -> None:
    async with serving(PROTOCOLS[service], keep_alive_s=LONG_S, app=tell) as (port, _):
        reader, writer = await asyncio.open_connection(HOST, port)
        writer.write(POST + after)
        answer = await answer_of(reader)
        writer.close()
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert answer.count(b"HTTP/1.1 ") == 1


@every_service
async def test_an_answered_request_gets_no_second_answer(service: str) -> None:
    """Its body never comes: the next answer on this connection would be taken for that of the next request."""
    quick = type("Quick", (PROTOCOLS[service],), {"timeout_s": QUICK_S})
    for body in (b"", b"a: b"):
        async with serving(quick, keep_alive_s=LONG_S) as (port, _):
            reader, writer = await asyncio.open_connection(HOST, port)
            writer.write(GET[:-2] + b"content-length: 5\r\n\r\n" + body)
            answer = await answer_of(reader)
            writer.close()
            assert answer.count(b"HTTP/1.1 ") == 1
            assert answer.startswith(b"HTTP/1.1 200 ")


@every_service
async def test_nonsense_in_the_body_of_an_answered_request_gets_no_second_answer(service: str) -> None:
    async with serving(PROTOCOLS[service], keep_alive_s=LONG_S) as (port, _):
        reader, writer = await asyncio.open_connection(HOST, port)
        writer.write(CHUNKED)
        await reader.readuntil(b"ok")
        writer.write(b"nonsense\r\n")
        assert await answer_of(reader) == b""
        writer.close()


@every_service
async def test_a_head_counts_from_its_own_start(service: str) -> None:
    """Not from the requests before it in the same read."""
    large = type("Large", (PROTOCOLS[service],), {"head_bytes_max": 2_000})
    async with serving(large, keep_alive_s=LONG_S, app=tell) as (port, _):
        reader, writer = await asyncio.open_connection(HOST, port)
        writer.write(POST * 100 + GET[:-2] + b"x-a: " + b"a" * 1_000)
        await writer.drain()
        await asyncio.sleep(0.2)
        writer.write(b"a" * 500 + b"\r\n\r\n")
        async with asyncio.timeout(10):
            for _ in range(100):
                await reader.readuntil(b"/ host content-length\n")
            assert b" 200 " in await reader.readuntil(b"/ host x-a\n")
        writer.close()


@every_service
@pytest.mark.parametrize("filler", [b"x-a: " + b"a" * 30_000 + b"\r\n", b"a: b\r\n" * 5_000], ids=["one", "many"])
async def test_a_large_head_in_one_piece_is_refused_too(service: str, filler: bytes) -> None:
    async with serving(PROTOCOLS[service], keep_alive_s=LONG_S) as (port, _):
        for request_ in (GET[:-2] + filler + b"\r\n", b"GET /" + b"a" * 30_000 + b" HTTP/1.1\r\nhost: x\r\n\r\n"):
            reader, writer = await asyncio.open_connection(HOST, port)
            writer.write(request_)
            answer = await answer_of(reader)
            writer.close()
            assert answer.startswith(b"HTTP/1.1 431 ")


# ------------------------------------------------------------------------------------------ answers that nobody reads


@every_service
async def test_who_does_not_read_the_answer_is_cut_off_in_time(service: str) -> None:
    """Also where the connection is kept alive for long."""
    quick = type("Quick", (PROTOCOLS[service],), {"answer_s": QUICK_S})
    async with serving(quick, keep_alive_s=LONG_S) as (port, connections):
        with socket.create_connection((HOST, port)) as client:
            client.send(GET.replace(b"/", b"/large", 1))
            await eventually(lambda: bool(connections))
            await eventually(lambda: not connections)


@every_service
async def test_who_has_most_answers_that_nobody_reads_pays(service: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the oldest of all, who may be somebody else."""
    monkeypatch.setattr(counted, "UNREAD_MAX", 3)
    protocol_class: Any = type("Own", (PROTOCOLS[service],), {})
    async with serving(protocol_class, keep_alive_s=LONG_S) as (port, connections):
        with contextlib.ExitStack() as stack:
            sent = []
            for number, address in enumerate(("127.0.0.8", "127.0.0.9", "127.0.0.9", "127.0.0.9")):
                client = stack.enter_context(socket.create_connection((HOST, port), source_address=(address, 0)))
                client.send(GET.replace(b"/", b"/large", 1))
                sent.append(client.getsockname())
                expected = min(number + 1, 3)
                await eventually(lambda expected=expected: len(protocol_class._unread or ()) == expected)  # type: ignore[misc]

            def left() -> set[Any]:
                return {each.transport.get_extra_info("peername") for each in protocol_class._unread}

            await eventually(lambda: sent[3] in left())
            assert left() == {sent[0], sent[2], sent[3]}
            await eventually(lambda: len(connections) == 3)


@every_service
async def test_few_may_have_answers_that_they_do_not_read(service: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that has not read for the longest goes first; who reads is none of them."""
    monkeypatch.setattr(counted, "UNREAD_MAX", 3)
    protocol_class: Any = type("Own", (PROTOCOLS[service],), {})
    async with serving(protocol_class, keep_alive_s=LONG_S) as (port, connections):
        with contextlib.ExitStack() as stack:
            clients = []
            for number in range(5):
                client = stack.enter_context(socket.create_connection((HOST, port)))
                client.send(GET.replace(b"/", b"/large", 1))
                clients.append(client)
                expected = min(number + 1, 3)
                await eventually(lambda expected=expected: len(protocol_class._unread or ()) == expected)  # type: ignore[misc]
            await eventually(lambda: len(connections) == 3)
            reader, writer = await asyncio.open_connection(HOST, port)
            writer.write(GET)
            async with asyncio.timeout(10):
                await reader.readuntil(b"ok")
            writer.close()
