"""Bids at a given pace (an open loop), or as many as asked for as fast as they are taken."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import cast

import click
from typing_extensions import override

from bench.clients.answers import status_of

_CONNECTIONS = 16
_PATIENCE_S = 30.0


class _Line(asyncio.Protocol):
    """A connection to the gateway with one request in flight at most."""

    def __init__(self) -> None:
        self._buffer = b""
        self._answer: asyncio.Future[int] | None = None
        self.transport: asyncio.Transport | None = None

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    async def send(self, request: bytes) -> int:
        """The status of the answer."""
        assert self.transport is not None
        self._answer = asyncio.get_running_loop().create_future()
        self.transport.write(request)
        return await asyncio.wait_for(self._answer, _PATIENCE_S)

    @override
    def data_received(self, data: bytes) -> None:
        data = self._buffer + data
        status = status_of(data)
        if status is None:
            self._buffer = data
            return
        self._buffer = b""
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(status)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(ConnectionError("the gateway closed the connection"))


async def _lines(port: int, count: int) -> list[_Line]:
    loop = asyncio.get_running_loop()
    return [(await loop.create_connection(_Line, "127.0.0.1", port))[1] for _ in range(count)]


def _hang_up(lines: list[_Line]) -> None:
    for line in lines:
        if line.transport is not None:
            line.transport.abort()


async def bid_at_pace(port: int, requests: Iterator[bytes], *, rate: float, seconds: float) -> int:
    """Send ``rate`` bids a second for ``seconds``, each when it is due; returns how many were accepted.

    One bid is on its way at a time as long as the gateway keeps up, so that each is higher than the one before.

    Raises:
        click.ClickException: a bid was not answered by 201 or 200, or the pace was missed by more than a tenth.
    """
    (line,) = lines = await _lines(port, 1)
    loop = asyncio.get_running_loop()
    accepted = 0
    began = loop.time()
    wanted = round(rate * seconds)
    for number in range(wanted):
        await asyncio.sleep(max(0.0, began + number / rate - loop.time()))
        accepted += _counted(await line.send(next(requests)))
    took = loop.time() - began
    _hang_up(lines)
    if took > seconds * 1.1 + 0.1:
        raise click.ClickException(f"{wanted} bids took {took:.1f} s instead of {seconds:g} s; the machine is too busy")
    return accepted


async def bid_many(port: int, requests: Iterator[bytes], count: int) -> int:
    """Send ``count`` bids, several at a time; returns how many were accepted."""
    lines = await _lines(port, min(count, _CONNECTIONS))
    left = iter(range(count))

    async def work(line: _Line) -> int:
        return sum([_counted(await line.send(next(requests))) for _ in left])

    accepted = sum(await asyncio.gather(*map(work, lines)))
    _hang_up(lines)
    return accepted


def _counted(status: int) -> int:
    if status not in (200, 201):
        raise click.ClickException(f"the gateway answered {status} at {time.strftime('%H:%M:%S')}")
    return status == 201
