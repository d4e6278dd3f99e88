"""Very many viewers in one process, each a raw WebSocket, and some of whom stop reading."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
import struct
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import cast

import msgspec

from tests.faults.rig.bidders import NOT_EVENTS
from tests.faults.rig.history import Frame, Viewer
from tests.waiting import eventually

_TEXT, _CLOSE, _PING = 0x81, 0x88, 0x89
_HEAD_END = b"\r\n\r\n"
_UPGRADE = (
    "GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: MDEyMzQ1Njc4OWFiY2RlZg==\r\nSec-WebSocket-Version: 13\r\n\r\n"
)
_CONNECTING_MAX = 100


class _Text(msgspec.Struct):
    """What is read of a frame; those without a state of the item have no price."""

    type: str
    item_id: str = ""
    epoch: int = 0
    seq: int = -1
    current_bid: float | None = None


class RawViewer(asyncio.Protocol):
    """One connection. ``frames`` are those with a state of an item; ``code`` is that of the close frame."""

    def __init__(self, request: bytes, message: bytes, on_frame: Callable[[Frame, float], None]) -> None:
        self._request = request
        self._message = message
        self._on_frame = on_frame
        self._buffer = b""
        self._is_open = False
        self.transport: asyncio.Transport | None = None
        self.frames: list[Frame] = []
        self.seqs: dict[str, int] = {}
        """Per item, the newest state that it was shown."""
        self.types: set[str] = set()
        self.code: int | None = None
        self.is_gone = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.write(self._request)

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_gone = True

    def follow(self, item_id: str) -> None:
        """Follow one more item; for those who came to ``/ws``."""
        assert self.transport is not None
        self.transport.write(_subscribe(item_id))

    def stop_reading(self) -> None:
        """From now on the kernel keeps what comes, until it has no room either."""
        assert self.transport is not None
        self.transport.pause_reading()

    def read_again(self) -> None:
        """Read what was kept, and go on."""
        assert self.transport is not None
        self.transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        now_s = time.monotonic()
        data = self._buffer + data
        if not self._is_open:
            head, end, rest = data.partition(_HEAD_END)
            if not end:
                self._buffer = data
                return
            assert head.startswith(b"HTTP/1.1 101"), head
            self._is_open, data = True, rest
            if self._message and self.transport is not None:
                self.transport.write(self._message)
        at = 0
        while (found := _one_frame(data, at)) is not None:
            payload, at_next = found
            self._take(data[at], payload, now_s)
            at = at_next
        self._buffer = data[at:]

    def _take(self, opcode: int, payload: bytes, now_s: float) -> None:
        if opcode == _CLOSE:
            self.code = struct.unpack("!H", payload[:2])[0] if len(payload) >= 2 else 1005
        elif opcode == _PING and self.transport is not None:
            # Masked with zeros, which leaves the payload as it is.
            self.transport.write(bytes([0x8A, 0x80 | len(payload)]) + b"\0\0\0\0" + payload)
        elif opcode == _TEXT:
            text = _decode(payload)
            self.types.add(text.type)
            if text.current_bid is not None and text.seq >= 0:
                price = round(text.current_bid * 100)
                self.frames.append(Frame(text.epoch, text.seq, price, text.type not in NOT_EVENTS))
                self.seqs[text.item_id] = text.seq
                self._on_frame(self.frames[-1], now_s)


_decode = msgspec.json.Decoder(_Text).decode


def _subscribe(item_id: str) -> bytes:
    """A frame masked with zeros, which leaves the payload as it is."""
    payload = msgspec.json.encode({"op": "subscribe", "items": [item_id]})
    assert len(payload) < 126, "longer ones have another header"
    return bytes([_TEXT, 0x80 | len(payload)]) + b"\0\0\0\0" + payload


def _one_frame(data: bytes, at: int) -> tuple[bytes, int] | None:
    """The payload of the frame at ``at`` and where the next begins, or None where it is not complete."""
    if len(data) - at < 2:
        return None
    length, start = data[at + 1], at + 2
    if length == 126:
        length, start = int.from_bytes(data[start : start + 2]), start + 2
    elif length == 127:
        length, start = int.from_bytes(data[start : start + 8]), start + 8
    if len(data) < start + length:
        return None
    return data[start : start + length], start + length


class Crowd:
    """Viewers of one item who note when each event reached them."""

    def __init__(self, port: int, item_id: str) -> None:
        self.viewers: list[RawViewer] = []
        self.arrivals: list[tuple[int, float]] = []
        """The seq of each event, and when it reached somebody, on the monotonic clock."""
        self._port = port
        self._item_id = item_id

    async def join(self, count: int) -> None:
        """So many viewers, each with its snapshot."""
        room = asyncio.Semaphore(_CONNECTING_MAX)
        path = f"/ws/items/{self._item_id}"

        async def one() -> None:
            async with room:
                self.viewers.append(await self._connect(socket.socket(), path, b"", self._arrived))

        await asyncio.gather(*(one() for _ in range(count)))

    @contextlib.asynccontextmanager
    async def viewer_without_room(self) -> AsyncIterator[RawViewer]:
        """One who may follow other items as well, and has hardly any room for what it does not read."""
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        viewer = await self._connect(sock, "/ws", _subscribe(self._item_id), lambda frame, now_s: None)
        try:
            yield viewer
        finally:
            assert viewer.transport is not None
            viewer.transport.abort()

    async def _connect(
        self, sock: socket.socket, path: str, message: bytes, on_frame: Callable[[Frame, float], None]
    ) -> RawViewer:
        loop = asyncio.get_running_loop()
        request = _UPGRADE.format(path=path, port=self._port).encode()
        sock.setblocking(False)
        await loop.sock_connect(sock, ("127.0.0.1", self._port))
        _, viewer = await loop.create_connection(lambda: RawViewer(request, message, on_frame), sock=sock)

        async def shown() -> bool:
            return bool(viewer.frames)

        await eventually(shown, seconds=30)
        return viewer

    def _arrived(self, frame: Frame, now_s: float) -> None:
        if frame.is_event:
            self.arrivals.append((frame.seq, now_s))

    async def all_reached(self, seq: int, *, within_s: float = 30.0) -> None:
        """Wait until everybody was shown the state of ``seq`` or a later one."""

        async def reached() -> bool:
            return all(viewer.seqs[self._item_id] >= seq for viewer in self.viewers)

        await eventually(reached, seconds=within_s)

    def views(self) -> list[Viewer]:
        """What each was shown, for the judge."""
        return [Viewer(f"one of the crowd, {number}", [each.frames]) for number, each in enumerate(self.viewers)]

    def leave(self) -> None:
        """Everybody hangs up."""
        for viewer in self.viewers:
            if viewer.transport is not None:
                viewer.transport.abort()


@contextlib.contextmanager
def open_files(wanted: int) -> Iterator[None]:
    """Room for so many open files in this process and in those that it starts meanwhile.

    Raises:
        ValueError: the system allows fewer.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
