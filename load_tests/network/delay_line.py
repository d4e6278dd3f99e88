"""``python -m load_tests.network.delay_line --delay-ms 7.5 --to 6379 --to 4222``: hops of a network.

Each hop listens on a free port and passes everything on to a port of this machine, both ways, each byte ``delay-ms``
later. Unlike a proxy that sleeps before it passes a chunk on, it delays and does not slow down: what arrives meanwhile
is under way as well, as on a wire. The making of a connection is not delayed. The first line of output is the ports, as
a JSON list in the order of ``--to``; it ends with SIGTERM.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections import deque
from typing import Final, cast

import click
import uvloop
from typing_extensions import override

HOST: Final = "127.0.0.1"
UNDER_WAY_MAX: Final = 16 * 1024 * 1024
"""Bytes on the wire in one direction of a connection, also those for which nobody reads at its end; then their sender
has to wait, as with a full window."""


class End(asyncio.Protocol):
    """One end of a hop; what comes in here goes out at ``far`` after the delay."""

    def __init__(self, delay_s: float, ends: set[End]) -> None:
        self._delay_s = delay_s
        self._ends = ends
        self._loop = asyncio.get_running_loop()
        # None: no more comes this way; empty: the connection is over.
        self._wire: deque[tuple[float, bytes | None]] = deque()
        self._under_way = 0
        self._timer: asyncio.TimerHandle | None = None
        self._is_over = False
        # Whoever is behind this end does not read. What arrives for it waits on the wire, where it is bounded.
        self.is_full = False
        self.has_ended = False
        self.far: End | None = None
        self.transport: asyncio.Transport | None = None

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # uvloop's is one, but not by its type
        self._ends.add(self)

    @override
    def data_received(self, data: bytes) -> None:
        self._wire.append((self._loop.time() + self._delay_s, data))
        self._under_way += len(data)
        if self._under_way > UNDER_WAY_MAX and self.transport is not None:
            self.transport.pause_reading()
        self._wait()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        # The end takes as long to the other side as a byte does.
        self._is_over = True
        self._ends.discard(self)
        self.resume_writing()
        self._wire.append((self._loop.time() + self._delay_s, b""))
        self._wait()

    @override
    def eof_received(self) -> bool:
        """Answers may still be under way, so this direction alone ends; True keeps the connection."""
        self.has_ended = True
        self._wire.append((self._loop.time() + self._delay_s, None))
        self._wait()
        return True

    @override
    def pause_writing(self) -> None:
        self.is_full = True

    @override
    def resume_writing(self) -> None:
        self.is_full = False
        if self.far is not None:
            self.far._wait()

    def _wait(self) -> None:
        if self._timer is None and self._wire and self.far is not None and not self.far.is_full:
            self._timer = self._loop.call_at(self._wire[0][0], self._arrive)

    def joined(self, far: End) -> None:
        """The other end is there."""
        self.far = far
        self._wait()

    def _arrive(self) -> None:
        self._timer = None
        now, far = self._loop.time(), self.far
        out = far.transport if far is not None else None
        while self._wire and self._wire[0][0] <= now and not (far is not None and far.is_full):
            _, data = self._wire.popleft()
            self._under_way -= len(data or b"")
            if out is None or out.is_closing():
                continue
            if data:
                out.write(data)
            elif data is None:
                out.write_eof()
                if far is not None and far.has_ended:
                    out.close()
            else:
                out.close()
        if self._under_way <= UNDER_WAY_MAX and self.transport is not None and not self._is_over:
            self.transport.resume_reading()
        self._wait()


class Near(End):
    """The end at which clients connect."""

    def __init__(self, delay_s: float, ends: set[End], to_port: int, tasks: set[asyncio.Task[None]]) -> None:
        super().__init__(delay_s, ends)
        self._to_port = to_port
        self._tasks = tasks

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        task = asyncio.get_running_loop().create_task(self._connect())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _connect(self) -> None:
        far = End(self._delay_s, self._ends)
        try:
            await asyncio.get_running_loop().create_connection(lambda: far, HOST, self._to_port)
        except OSError:
            if self.transport is not None:
                self.transport.abort()
            return
        far.joined(self)
        self.joined(far)


class Hops:
    """Hops that are listening. ``ports`` are in the order of the ports that they lead to; ``ends`` are those of the
    connections that are open."""

    def __init__(self, servers: list[asyncio.Server], ends: set[End]) -> None:
        self._servers = servers
        self.ends = ends
        self.ports = [int(server.sockets[0].getsockname()[1]) for server in servers]

    def close(self) -> None:
        """Accept no more; open connections end with their peers."""
        for server in self._servers:
            server.close()


async def serve(delay_s: float, to_ports: list[int], *, backlog: int = 4_096) -> Hops:
    """Hops to these ports of this machine, each way ``delay_s`` long."""
    loop = asyncio.get_running_loop()
    tasks: set[asyncio.Task[None]] = set()
    ends: set[End] = set()

    async def one(to_port: int) -> asyncio.Server:
        return await loop.create_server(lambda: Near(delay_s, ends, to_port, tasks), HOST, 0, backlog=backlog)

    return Hops([await one(to_port) for to_port in to_ports], ends)


async def _run(delay_s: float, to_ports: list[int]) -> None:
    hops = await serve(delay_s, to_ports)
    sys.stdout.write(json.dumps(hops.ports) + "\n")
    sys.stdout.flush()
    over = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, over.set)
    await over.wait()


@click.command()
@click.option("--delay-ms", type=click.FloatRange(0, 10_000), required=True, help="One way.")
@click.option("--to", "to_ports", type=click.IntRange(1, 65_535), multiple=True, required=True)
def main(delay_ms: float, to_ports: tuple[int, ...]) -> None:
    """Serve until SIGTERM."""
    uvloop.run(_run(delay_ms / 1_000, list(to_ports)))


if __name__ == "__main__":
    main()
