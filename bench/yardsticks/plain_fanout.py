"""The yardstick of the fan-out: the same bytes to as many plain uvloop transports, and nothing else.

It answers every upgrade request with the same 101 and then writes prepared text frames, at the pace of BENCH_RATE a
second, to everybody who is connected. No queue, no subscription, no check: what is left is what the sockets cost.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from datetime import UTC, datetime
from typing import Final, cast

import msgspec
import uvloop
from typing_extensions import override

_UPGRADE: Final = b"HTTP/1.1 101 Switching Protocols\r\nupgrade: websocket\r\nconnection: Upgrade\r\n\r\n"


class _Socket(asyncio.Protocol):
    """One viewer."""

    def __init__(self, transports: set[asyncio.Transport], first: bytes) -> None:
        self._transports = transports
        self._first = first
        self._transport: asyncio.Transport | None = None

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    @override
    def data_received(self, data: bytes) -> None:
        if self._transport is not None and data.startswith(b"GET "):
            self._transport.write(_UPGRADE + self._first)
            self._transports.add(self._transport)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        if self._transport is not None:
            self._transports.discard(self._transport)


def frame(seq: int, padding: int = 0) -> bytes:
    """A text frame that looks like an accepted bid, of about the length that ours have."""
    content = {
        "type": "bid" if seq else "snapshot",
        "epoch": 1,
        "seq": seq,
        "timestamp": datetime.fromtimestamp(time.time(), UTC).isoformat(),
        "padding": "x" * padding,
    }
    text = msgspec.json.encode(content)
    return b"\x81\x7e" + len(text).to_bytes(2) + text if len(text) > 125 else bytes([0x81, len(text)]) + text


async def _serve(port: int, rate: float, padding: int) -> None:
    loop = asyncio.get_running_loop()
    transports: set[asyncio.Transport] = set()
    first = frame(0, padding)
    server = await loop.create_server(lambda: _Socket(transports, first), "127.0.0.1", port, backlog=4_096)
    stopped = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stopped.set)
    seq, began = 0, loop.time()

    def tick() -> None:
        nonlocal seq
        seq += 1
        data = frame(seq, padding)
        for transport in transports:
            transport.write(data)
        loop.call_at(began + (seq + 1) / rate, tick)

    tick()
    await stopped.wait()
    server.close()


if __name__ == "__main__":
    uvloop.run(_serve(int(os.environ["BENCH_PORT"]), float(os.environ["BENCH_RATE"]), int(os.environ["BENCH_PADDING"])))
