"""How other services are: each is asked within bounds, whatever it does."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from api_gateway.ops import parts
from api_gateway.ops.parts import Part, PartAddress, Parts, parse_parts

METRICS = b'# HELP feed_connections Open.\nfeed_connections 12.0\nfeed_other 7.0\nfeed_items{a="b"} 3\nfeed_items 4\n'
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def answer(status: int, body: bytes) -> bytes:
    return b"HTTP/1.1 %d X\r\nContent-Length: %d\r\n\r\n%b" % (status, len(body), body)


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A time-out that no answer in these tests reaches, however slow this machine is."""
    monkeypatch.setattr(parts, "WITHIN_S", 30)


@contextlib.asynccontextmanager
async def served(serve: Serve) -> AsyncIterator[PartAddress]:
    handled: list[asyncio.Task[None]] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        handled.append(asyncio.create_task(handle(reader, writer)))

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield PartAddress("broadcast_service", "127.0.0.1", server.sockets[0].getsockname()[1])
    finally:
        server.close()
        await asyncio.gather(*handled, return_exceptions=True)


def telling(ready: bytes, metrics: bytes = b"", *, seen: list[bytes] | None = None) -> Serve:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if seen is not None:
            seen.append(head)
        writer.write(ready if head.startswith(b"GET /ready ") else metrics or answer(200, METRICS))

    return serve


async def one(address: PartAddress) -> Part:
    [part] = await Parts([address]).ask()
    return part


async def test_what_a_part_says_and_a_few_of_its_figures() -> None:
    body = (
        b'{"status":"degraded","service":"x","nats":"down","degraded":["nats","redis"],"redis":"ok","lag":0,"backlog":7,"ok":true,'
        b'"dead_letters":null,"works":false,"alarms":{"clashes":"3 events"},"long":"%b"}' % (b"x" * 1_000)
    )
    async with served(telling(answer(200, body))) as address:
        part = await one(address)
    assert (part.name, part.status) == ("broadcast_service", "degraded")
    assert part.details == {
        "nats": "down",
        "degraded": "nats, redis",
        "backlog": "7",
        "works": "False",
        "clashes": "3 events",
        "long": "x" * 300,
    }
    assert part.figures == {"viewers": 12.0, "items_followed": 4.0}


async def test_who_is_not_ready_is_heard_too() -> None:
    async with served(telling(answer(503, b'{"status":"unavailable"}'))) as address:
        assert (await one(address)).status == "unavailable"


@pytest.mark.parametrize(
    "said",
    [
        b"",
        b"hello\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: 99999999\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 400_000,
        answer(200, b"not json"),
        answer(200, b"[1]"),
        answer(200, b'{"status":7}'),
        answer(200, b"[" * 100_000),
    ],
    ids=lambda said: said[:40].decode(),
)
async def test_whatever_else_it_says_it_is_not_reached(said: bytes) -> None:
    async with served(telling(said)) as address:
        part = await one(address)
    assert (part.status, part.figures) == ("unreachable", {})
    assert part.details["error"]


async def test_a_figure_that_is_no_number_makes_it_unreachable_and_hides_no_other_part() -> None:
    name = next(iter(parts.FIGURES))
    good = telling(answer(200, b'{"status":"ready"}'), answer(200, f"{name} 7\n".encode()))
    bad = telling(answer(200, b'{"status":"ready"}'), answer(200, f"{name} 1-2\n".encode()))
    async with served(good) as one_address, served(bad) as other_address:
        told = await Parts([one_address, other_address]).ask()
    assert [part.status for part in told] == ["ready", "unreachable"]
    assert "1-2" in told[1].details["error"]


async def test_nobody_there_and_nobody_who_speaks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "WITHIN_S", 0.2)

    async def silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    async with served(silent) as address:
        part = await one(address)
    assert (part.status, part.details) == ("unreachable", {"error": "TimeoutError"})
    assert (await one(address)).status == "unreachable"


async def test_many_who_look_ask_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "KEPT_S", 60)
    seen: list[bytes] = []
    async with served(telling(answer(200, b'{"status":"ready"}'), seen=seen)) as address:
        asking = Parts([address])
        looks = [asyncio.create_task(asking.ask()) for _ in range(20)]
        await asyncio.sleep(0)
        # One gives up; the others are answered.
        looks[0].cancel()
        told = await asyncio.gather(*looks[1:])
        told.append(await asking.ask())
    assert {part.status for [part] in told} == {"ready"}
    assert len(seen) == 2, "/ready and /metrics, once"


def test_addresses() -> None:
    assert parse_parts("") == ()
    assert parse_parts(" a=http://h:1/ , b-2=http://[::1]:82,c=http://h") == (
        ("a", "h", 1),
        ("b-2", "::1", 82),
        ("c", "h", 80),
    )


@pytest.mark.parametrize(
    "text", ["a", "a=", "=http://h:1", "A=http://h:1", "a=https://h:1", "a=http://h:1/x", "a=http://h:x", "a=http://:1"]
)
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ValueError, match="is no part"):
        parse_parts(text)
    with pytest.raises(ValueError, match="at most 32"):
        parse_parts(",".join(f"a{number}=http://h:1" for number in range(33)))


async def test_a_part_that_says_too_much_is_cut_short() -> None:
    body = b'{"status":"ready","a":{%b}}' % b",".join(b'"%d":1' % number for number in range(1_000))
    async with served(telling(answer(200, body))) as address:
        assert len((await one(address)).details) == parts.DETAILS_MAX
