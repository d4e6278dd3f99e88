"""The demo beside platforms that are busy, gone, or take nothing: pretended here, on a port of this machine."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from infrastructure.local.demo.runner import LOTS_REFUSED_MAX, Demo, DemoError, DemoPlan
from infrastructure.local.servers.ports import HOST, free_ports
from tests.tcp import serving, until_closed


class Pretender:
    """Answers every request with the same words, and counts them."""

    def __init__(self, status: str, body: str, headers: str = "") -> None:
        self.requests = 0
        self.asked = asyncio.Event()
        self._answer = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n{headers}\r\n{body}"

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[str]:
        async with serving(self._serve) as port:
            yield f"http://{HOST}:{port}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        self.requests += 1
        self.asked.set()
        writer.write(self._answer.encode())
        writer.close()
        await until_closed(writer)


def plan(url: str, *, lots: int = 3, seconds: float | None = None) -> DemoPlan:
    return DemoPlan(url, lots, 5, 50.0, seconds, seed=1, tag="t")


async def test_a_busy_platform_is_left_in_peace_for_as_long_as_it_says() -> None:
    busy = Pretender("503 Service Unavailable", '{"code":"OVERLOADED"}', "Retry-After: 30\r\n")
    async with busy.listening() as url:
        demo = Demo(plan(url, seconds=2.5), lambda _: None)
        async with asyncio.timeout(30):
            await demo.run(asyncio.Event())
    # What was under way when the first answer came, and nothing after it.
    assert 1 <= busy.requests <= 3
    assert demo.tally.troubles == {"OVERLOADED": busy.requests}
    assert demo.tally.opened == 0


async def test_it_stops_at_once_when_it_is_asked_to() -> None:
    busy = Pretender("429 Too Many Requests", "{}", "Retry-After: 30\r\n")
    async with busy.listening() as url:
        stop = asyncio.Event()
        running = asyncio.create_task(Demo(plan(url), lambda _: None).run(stop))
        async with asyncio.timeout(20):
            await busy.asked.wait()
            stop.set()
            await running


async def test_a_platform_that_only_says_that_it_is_busy_is_given_up() -> None:
    busy = Pretender("503 Service Unavailable", '{"code":"OVERLOADED"}', "")
    async with busy.listening() as url:
        with pytest.raises(DemoError, match=r"has not answered for 0.2 s"):
            async with asyncio.timeout(30):
                await Demo(replace(plan(url), give_up_after_s=0.2), lambda _: None).run(asyncio.Event())


async def test_an_address_where_nothing_ever_answered_is_given_up_sooner() -> None:
    [port] = free_ports(1)
    nowhere = replace(plan(f"http://{HOST}:{port}"), give_up_after_s=3600.0, find_within_s=0.2)
    with pytest.raises(DemoError, match=rf"Nothing answers at http://{HOST}:{port}: is it the address of a gateway"):
        async with asyncio.timeout(30):
            await Demo(nowhere, lambda _: None).run(asyncio.Event())


async def test_a_platform_that_takes_no_lots_is_given_up() -> None:
    strange = Pretender("404 Not Found", "<html>", "")
    async with strange.listening() as url:
        with pytest.raises(DemoError, match=r"does not take the lots: HTTP_404"):
            async with asyncio.timeout(30):
                await Demo(plan(url, lots=LOTS_REFUSED_MAX), lambda _: None).run(asyncio.Event())


async def test_a_demo_that_is_over_before_anybody_answered_says_so() -> None:
    [port] = free_ports(1)
    demo = Demo(plan(f"http://{HOST}:{port}", seconds=0.5), lambda _: None)
    with pytest.raises(DemoError, match="Nothing answers"):
        async with asyncio.timeout(30):
            await demo.run(asyncio.Event())
