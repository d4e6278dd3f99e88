"""Rude clients, in a process of their own: what they take of a CPU is not taken from the loop that times the others.

`tests/crowds/attacks.py` starts this file as a program, with nothing but the standard library. It reads the members of
`Rude` as a line of JSON, then lines: `on` opens the connections, `off` resets them. Each is answered with a line of
JSON.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import struct
import sys
from dataclasses import dataclass
from functools import partial
from typing import Final

READS_AT_MOST: Final = 4_096
"""What the kernel keeps for a client that does not read, in bytes."""
CONNECTS_AT_ONCE: Final = 50
CONNECT_S: Final = 30.0


@dataclass(frozen=True)
class Rude:
    """What each of the connections does. Bytes are told as text, one character for each.

    Args:
        port: of a service on this machine.
        connections: how many.
        opening: sent at once. With ``is_greeted`` nothing else is sent before there is an answer to it.
        piece: sent again and again after that, ``pieces`` times, or without end.
        asks: the next piece is sent when there is an answer to the last, which has a content-length.
        reads: whether it takes what it is sent.
        again_s: a connection that was closed or refused is opened again after so long; 0: it is not.
    """

    port: int
    connections: int
    opening: str = ""
    piece: str = ""
    pieces: int = 0
    is_greeted: bool = False
    asks: bool = False
    reads: bool = True
    again_s: float = 0.02


class Counts:
    """What has happened since the connections were opened."""

    def __init__(self, connections: int) -> None:
        self._connections = connections
        self.all_came = asyncio.Event()
        self.opened = self.refused = self.closed = self.answers = self.sent_bytes = self.read_bytes = 0

    def came(self, *, is_open: bool) -> None:
        """A connection was opened, or refused."""
        self.opened += is_open
        self.refused += not is_open
        if self.opened + self.refused >= self._connections:
            self.all_came.set()

    def told(self) -> dict[str, int]:
        return {name: value for name, value in vars(self).items() if isinstance(value, int) and name[0] != "_"}


class Connection(asyncio.Protocol):
    """One of them."""

    def __init__(self, rude: Rude, counts: Counts, ended: asyncio.Event) -> None:
        self._rude = rude
        self._piece = rude.piece.encode("latin-1")
        self._counts = counts
        self._ended = ended
        self._is_paused = False
        self._waits = rude.is_greeted
        self._sent = 0
        self._head = b""
        # What is still to come of an answer after its head; None: its head is.
        self._left: int | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        self._counts.came(is_open=True)
        if not self._rude.reads:
            transport.pause_reading()
        if self._rude.opening:
            self._write(self._rude.opening.encode("latin-1"))
        self._go_on()

    def _write(self, data: bytes) -> None:
        self._counts.sent_bytes += len(data)
        self.transport.write(data)

    def _go_on(self) -> None:
        if self._waits or self._is_paused or self.transport.is_closing() or not self._piece:
            return
        if self._rude.pieces and self._sent == self._rude.pieces:
            return
        self._sent += 1
        self._waits = self._rude.asks
        self._write(self._piece)
        asyncio.get_running_loop().call_soon(self._go_on)

    def pause_writing(self) -> None:
        self._is_paused = True

    def resume_writing(self) -> None:
        self._is_paused = False
        self._go_on()

    def data_received(self, data: bytes) -> None:
        self._counts.read_bytes += len(data)
        if self._rude.asks:
            self._take(data)
        elif self._waits:
            self._waits = False
            self._go_on()

    def _take(self, data: bytes) -> None:
        if self._left is None:
            self._head += data
            head, end, data = self._head.partition(b"\r\n\r\n")
            if not end:
                return
            self._head = b""
            self._left = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        self._left -= len(data)
        if self._left <= 0:
            self._left = None
            self._counts.answers += 1
            self._waits = False
            self._go_on()

    def connection_lost(self, exc: Exception | None) -> None:
        self._counts.closed += 1
        self._ended.set()


async def keep_one(rude: Rude, counts: Counts, gate: asyncio.Semaphore) -> None:
    """Open a connection whenever there is none."""
    loop = asyncio.get_running_loop()
    while True:
        ended = asyncio.Event()
        sock = socket.socket()
        try:
            sock.setblocking(False)
            # When it is closed what is on its way is lost: the attack is over then, and not when all of that is taken.
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            if not rude.reads:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, READS_AT_MOST)
            async with gate:
                await loop.sock_connect(sock, ("127.0.0.1", rude.port))
                made = partial(Connection, rude, counts, ended)
                transport, _ = await loop.create_connection(made, sock=sock)
        except OSError:
            counts.came(is_open=False)
            sock.close()
        except asyncio.CancelledError:
            sock.close()
            raise
        else:
            try:
                await ended.wait()
            finally:
                transport.abort()
        if not rude.again_s:
            return
        await asyncio.sleep(rude.again_s)


async def obey() -> None:
    """Do what the lines say, until there are no more."""
    loop = asyncio.get_running_loop()
    lines = asyncio.StreamReader(limit=64 * 1024**2)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(lines), sys.stdin)
    rude = Rude(**json.loads(await lines.readline()))
    keeping: list[asyncio.Task[None]] = []
    counts = Counts(rude.connections)
    while line := await lines.readline():
        if line == b"on\n":
            counts, gate = Counts(rude.connections), asyncio.Semaphore(CONNECTS_AT_ONCE)
            keeping = [asyncio.create_task(keep_one(rude, counts, gate)) for _ in range(rude.connections)]
            await asyncio.wait_for(counts.all_came.wait(), CONNECT_S)
        elif line == b"off\n":
            for task in keeping:
                task.cancel()
            await asyncio.wait(keeping)
        sys.stdout.write(json.dumps(counts.told()) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    # The services come first, as they would if this were another machine. What is busy beside them makes an attack
    # weaker, and not those it is compared with.
    os.nice(19)
    asyncio.run(obey())
