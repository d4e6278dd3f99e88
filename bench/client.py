"""A closed-loop HTTP client, cheap enough not to be what is measured: raw protocols on uvloop, one request in flight
each."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import cast

from typing_extensions import override

_HEAD_END = b"\r\n\r\n"
_LENGTH = b"content-length: "


@dataclass(slots=True)
class Tally:
    """What the connections counted. ``latencies_s`` is a sample: every 16th request."""

    accepted: int = 0
    refused: int = 0
    failed: int = 0
    latencies_s: list[float] = field(default_factory=list)

    @property
    def answered(self) -> int:
        """All answers."""
        return self.accepted + self.refused + self.failed


class _Connection(asyncio.Protocol):
    def __init__(self, tally: Tally, requests: Iterator[bytes]) -> None:
        self._tally = tally
        self._requests = requests
        self._buffer = b""
        self._sent_at = 0.0
        self._count = 0
        self.transport: asyncio.Transport | None = None

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's transport is one, but not by its type
        self._send()

    def _send(self) -> None:
        assert self.transport is not None
        self._count += 1
        if self._count % 16 == 0:
            self._sent_at = time.perf_counter()
        self.transport.write(next(self._requests))

    @override
    def data_received(self, data: bytes) -> None:
        if self._buffer:
            data = self._buffer + data
        end = data.find(_HEAD_END)
        if end < 0:
            self._buffer = data
            return
        at = data.find(_LENGTH, 0, end)
        length = int(data[at + len(_LENGTH) : data.find(b"\r\n", at)])
        if len(data) < end + len(_HEAD_END) + length:
            self._buffer = data
            return
        self._buffer = b""
        status = data[9:12]
        if status == b"201":
            self._tally.accepted += 1
        elif status == b"200":
            self._tally.refused += 1
        else:
            self._tally.failed += 1
        if self._count % 16 == 0:
            self._tally.latencies_s.append(time.perf_counter() - self._sent_at)
        self._send()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        if exc is not None:
            self._tally.failed += 1


def bid_requests(item_ids: list[str], *, keyed: bool, start_minor: int = 1) -> Iterator[bytes]:
    """Endless bids, each one cent above the one before on the same item, over the items in turn."""
    heads = [
        f"POST /api/v1/items/{item_id}/bid HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-type: application/json\r\n".encode()
        for item_id in item_ids
    ]
    for number in itertools.count():
        minor = start_minor + number // len(heads)
        key = f',"bid_id":"bench-{number:012d}"' if keyed else ""
        amount = f"{minor // 100}.{minor % 100:02d}"
        body = f'{{"user_id":"user-{number % 1009:04d}","amount":{amount}{key}}}'.encode()
        yield b"%bcontent-length: %d\r\n\r\n%b" % (heads[number % len(heads)], len(body), body)


async def load(
    port: int,
    requests: Iterator[bytes],
    *,
    connections: int,
    warm_up_s: float,
    measure_s: float,
    cpu_s: Callable[[], float],
) -> tuple[Tally, float, float]:
    """Drive the server; returns the tally of the measured part, its length and the server's CPU time in it, in
    seconds."""
    loop = asyncio.get_running_loop()
    tally = Tally()
    made = [
        await loop.create_connection(lambda: _Connection(tally, requests), "127.0.0.1", port)
        for _ in range(connections)
    ]
    await asyncio.sleep(warm_up_s)
    began, cpu_began = time.perf_counter(), cpu_s()
    tally.accepted = tally.refused = tally.failed = 0
    tally.latencies_s.clear()
    await asyncio.sleep(measure_s)
    took, cpu_took = time.perf_counter() - began, cpu_s() - cpu_began
    measured = Tally(tally.accepted, tally.refused, tally.failed, list(tally.latencies_s))
    for transport, _ in made:
        transport.abort()
    await asyncio.sleep(0)
    return measured, took, cpu_took
