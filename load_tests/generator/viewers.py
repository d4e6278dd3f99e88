"""Thousands of viewers in one process, cheap enough not to be what is measured: raw WebSocket frames on uvloop.

A program of its own, so that it can have a core of its own. It is told what to do line by line on standard input and
answers each line with one JSON text: ``mark`` resets the counts, ``report`` gives them, ``read`` lets viewers who
stopped reading go on, ``quit`` ends. The first line of its output says that all viewers have their first snapshot.
"""

from __future__ import annotations

import array
import asyncio
import json
import re
import socket
import struct
import sys
import time
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, cast

import click
import uvloop
from typing_extensions import override

from load_tests.generator.histogram import bucket_of
from load_tests.generator.samples import percentiles_ms

_HEAD_END: Final = b"\r\n\r\n"
_TEXT, _CLOSE, _PING = 0x81, 0x88, 0x89
_CONNECTING_MAX: Final = 200
"""Handshakes under way at once: more would only wait in the server's backlog."""

Version = tuple[int, int]
Seen = tuple[Version, float | None, float | None]
"""What is read of a frame: its version; when its event happened, if it has one; and when its bid was sent, if the bid's
id tells that. Both times in seconds since 1970."""

_SENT_AT: Final = re.compile(r"-t(\d{16})$")


def sent_mark(seconds: float) -> str:
    """The end of a bid id from which viewers learn when the bid was sent (seconds since 1970)."""
    return f"-t{round(seconds * 1e6):016d}"


class Crowd:
    """What all viewers of this process counted."""

    def __init__(self) -> None:
        self.frames = 0
        self.bytes = 0
        self.fell_back = 0
        self.bids = 0
        self.latencies_s = array.array("d")
        self.since_sent_s = array.array("d")
        self.closed: Counter[int] = Counter()
        # Every viewer gets the same bytes, so each frame is parsed once however many viewers there are.
        self._parsed: dict[bytes, tuple[Seen | None, int]] = {}

    def parse(self, text: bytes) -> tuple[Seen | None, int]:
        """What a frame's text says, and how many bids it stands for."""
        known = self._parsed.get(text)
        if known is None:
            if len(self._parsed) > 256:
                self._parsed.clear()
            known = self._parsed[text] = _parse(text)
        return known

    def mark(self) -> None:
        """Count from now on."""
        self.frames = self.bytes = self.fell_back = self.bids = 0
        self.latencies_s = array.array("d")
        self.since_sent_s = array.array("d")


def _parse(text: bytes) -> tuple[Seen | None, int]:
    frame: dict[str, Any] = json.loads(text)
    if "seq" not in frame or frame["type"] in ("stale", "standing"):
        return None, 0
    version = (frame["epoch"], frame["seq"])
    if frame["type"] in ("snapshot", "resumed"):
        return (version, None, None), 0
    happened = datetime.fromisoformat(frame["timestamp"]).timestamp()
    bids = frame["bids_since_last"] if frame["type"] == "state" else int(frame["type"] == "bid")
    sent = _SENT_AT.search(frame.get("bid_id") or "")
    return (version, happened, int(sent[1]) / 1e6 if sent else None), bids


class Viewer(asyncio.Protocol):
    """One connection."""

    __slots__ = ("_buffer", "_crowd", "_request", "_upgraded", "first", "stalls", "transport", "version")

    def __init__(self, crowd: Crowd, request: bytes, *, stalls: bool) -> None:
        self._crowd = crowd
        self._request = request
        self._buffer = b""
        self._upgraded = False
        self.first: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.stalls = stalls
        self.transport: asyncio.Transport | None = None
        self.version: Version | None = None

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.write(self._request)

    @override
    def data_received(self, data: bytes) -> None:
        now = time.time()
        if self._buffer:
            data = self._buffer + data
            self._buffer = b""
        at = 0
        if not self._upgraded:
            end = data.find(_HEAD_END)
            if end < 0:
                self._buffer = data
                return
            if not data.startswith(b"HTTP/1.1 101"):
                self._fail(data[:200].decode("latin-1"))
                return
            self._upgraded = True
            at = end + len(_HEAD_END)
        size = len(data)
        while size - at >= 2:
            length, start = data[at + 1], at + 2
            if length == 126:
                if size - at < 4:
                    break
                length, start = int.from_bytes(data[at + 2 : at + 4]), at + 4
            elif length == 127:
                if size - at < 10:
                    break
                length, start = int.from_bytes(data[at + 2 : at + 10]), at + 10
            if size - start < length:
                break
            self._frame(data[at], data[start : start + length], now)
            at = start + length
        if at < size:
            self._buffer = data[at:]

    def _frame(self, opcode: int, text: bytes, now: float) -> None:
        crowd = self._crowd
        if opcode == _TEXT:
            crowd.frames += 1
            crowd.bytes += len(text)
            seen, bids = crowd.parse(text)
            if seen is None:
                return
            version, happened, sent = seen
            if self.version is not None and version <= self.version:
                crowd.fell_back += 1
            self.version = version
            crowd.bids += bids
            if happened is not None:
                crowd.latencies_s.append(now - happened)
            if sent is not None:
                crowd.since_sent_s.append(now - sent)
            if not self.first.done():
                self.first.set_result(None)
                if self.stalls and self.transport is not None:
                    self.transport.pause_reading()
        elif opcode == _PING and self.transport is not None:
            # Masked with zeroes, which does not change the payload.
            self.transport.write(bytes([0x8A, 0x80 | len(text)]) + b"\0\0\0\0" + text)
        elif opcode == _CLOSE:
            crowd.closed[struct.unpack("!H", text[:2])[0] if len(text) >= 2 else 1005] += 1

    def _fail(self, why: str) -> None:
        if not self.first.done():
            self.first.set_exception(ConnectionError(f"the upgrade was refused: {why}"))

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._fail("the connection was closed")


def request_for(endpoint: FeedEndpoint, path: str) -> bytes:
    """The upgrade request. The key may be the same for all, and nobody looks at the answer to it."""
    return (
        f"GET {path} HTTP/1.1\r\nHost: {endpoint.host}:{endpoint.port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\nSec-WebSocket-Version: 13\r\n\r\n"
    ).encode()


@dataclass(frozen=True, slots=True)
class FeedEndpoint:
    """Where the feed is. ``addresses`` are the first three numbers of the local addresses from which viewers come, with
    ``per_address`` of them from each; empty: from whichever the system takes."""

    host: str
    port: int
    addresses: str
    per_address: int


async def _socket(endpoint: FeedEndpoint, number: int, *, small: bool) -> socket.socket:
    """A connected socket, from local addresses in turn, since the ports of each are limited; ``small``: with little
    room for unread frames."""
    loop = asyncio.get_running_loop()
    sock = socket.socket()
    sock.setblocking(False)
    if small:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
    if endpoint.addresses:
        sock.bind((f"{endpoint.addresses}.{1 + number // endpoint.per_address}", 0))
    await loop.sock_connect(sock, (endpoint.host, endpoint.port))
    return sock


async def _connect(
    endpoint: FeedEndpoint, path: str, crowd: Crowd, count: int, *, stalls: bool, first_number: int = 0
) -> list[Viewer]:
    loop = asyncio.get_running_loop()
    request = request_for(endpoint, path)
    room = asyncio.Semaphore(_CONNECTING_MAX)

    async def one(number: int) -> Viewer:
        async with room:
            viewer = Viewer(crowd, request, stalls=stalls)
            sock = await _socket(endpoint, first_number + number, small=stalls)
            await loop.create_connection(lambda: viewer, sock=sock)
            await asyncio.wait_for(viewer.first, 60)
            return viewer

    return list(await asyncio.gather(*(one(number) for number in range(count))))


def _report(crowd: Crowd, viewers: list[Viewer], lazy: Crowd) -> dict[str, Any]:
    at = Counter(viewer.version for viewer in viewers)
    newest = max((version for version in at if version is not None), default=None)
    return {
        "frames": crowd.frames,
        "bytes": crowd.bytes,
        "bids": crowd.bids,
        "fell_back": crowd.fell_back,
        "closed": dict(crowd.closed),
        "stalled_closed": dict(lazy.closed),
        "newest": newest,
        "at_newest": at[newest],
        "latency_ms": percentiles_ms(crowd.latencies_s),
        "since_decided": Counter(bucket_of(seconds * 1e3) for seconds in crowd.latencies_s),
        "since_sent": Counter(bucket_of(seconds * 1e3) for seconds in crowd.since_sent_s),
    }


async def _run(endpoint: FeedEndpoint, path: str, count: int, stalled: int) -> None:
    crowd, slow_crowd = Crowd(), Crowd()
    began = time.perf_counter()
    viewers = await _connect(endpoint, path, crowd, count, stalls=False)
    lazy = await _connect(endpoint, path, slow_crowd, stalled, stalls=True, first_number=count)
    _say({"connected": len(viewers), "stalled": len(lazy), "took_s": time.perf_counter() - began})
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while command := (await reader.readline()).decode().strip():
        match command:
            case "mark":
                crowd.mark()
                _say({})
            case "report":
                _say(_report(crowd, viewers, slow_crowd))
            case "read":
                # Viewers who stopped reading go on, to learn how they were closed.
                for viewer in lazy:
                    if viewer.transport is not None and not viewer.transport.is_closing():
                        viewer.transport.resume_reading()
                _say({})
            case "quit":
                break
    for viewer in viewers + lazy:
        if viewer.transport is not None:
            viewer.transport.abort()


def _say(content: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(content) + "\n")
    sys.stdout.flush()


@click.command()
@click.option("--host", default="127.0.0.1")
@click.option("--port", type=int, required=True)
@click.option("--path", required=True)
@click.option("--count", type=int, required=True)
@click.option("--stalled", type=int, default=0, help="So many more viewers who stop reading after their snapshot.")
@click.option("--addresses", default="127.0.0", help="Viewers come from addresses that begin like this; '': from any.")
@click.option("--per-address", type=int, default=5_000, help="Viewers from each.")
def main(host: str, port: int, path: str, count: int, stalled: int, addresses: str, per_address: int) -> None:
    """Connect the viewers and do what standard input says."""
    uvloop.run(_run(FeedEndpoint(host, port, addresses, per_address), path, count, stalled))


if __name__ == "__main__":
    main()
