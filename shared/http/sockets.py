"""The sockets that a server listens on, where several processes share a port."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import sys
from types import FrameType
from typing import Final

import uvicorn
from typing_extensions import override

logger = logging.getLogger(__name__)

_TICK_S: Final = 1.0

NOT_STARTED: Final = 3
"""Exit code of a server that could not begin, as uvicorn has it."""


class QuietServer(uvicorn.Server):
    """uvicorn, but it wakes once a second, for the header `date`, and at once when it is to end. The library looks ten
    times a second whether it is to end."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ends = asyncio.Event()

    def end(self) -> None:
        """Let :meth:`serve` end. May be called in a signal handler, and in another thread."""
        self.should_exit = True
        if self._loop is not None:
            self._loop.call_soon_threadsafe(self._ends.set)

    @override
    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        self.end()

    @override
    async def main_loop(self) -> None:
        self._loop = asyncio.get_running_loop()
        while not await self.on_tick(0):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_TICK_S):
                    await self._ends.wait()


class ListeningServer(QuietServer):
    """It also ends where it cannot listen.

    A socket is bound before the lifespan and listens after it. If another process begins to listen on the port in
    between, uvloop closes the socket and says nothing.
    """

    @override
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        ports = [sock.getsockname()[1] for sock in sockets or ()]
        await super().startup(sockets)
        for sock, port in zip(sockets or (), ports, strict=True):
            if not _listens(sock):
                logger.error("port %d was taken by another process", port)
                await self.lifespan.shutdown()
                sys.exit(NOT_STARTED)


def _listens(sock: socket.socket) -> bool:
    return sock.fileno() != -1 and bool(sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))


def sockets_or_exit(host: str, port: int, *, is_shared: bool, own_port: int = 0) -> list[socket.socket] | None:
    """As :func:`open_sockets`; where an address cannot be bound, one line says so, and the process ends."""
    try:
        return open_sockets(host, port, is_shared=is_shared, own_port=own_port)
    except OSError as error:
        ports = f"port {port}" + (f" and port {own_port}" if own_port else "")
        logger.error("cannot listen on %s %s: %s", host, ports, error.strerror or error)
        sys.exit(NOT_STARTED)


def open_sockets(host: str, port: int, *, is_shared: bool, own_port: int = 0) -> list[socket.socket] | None:
    """The sockets to listen on; None lets uvicorn open one.

    Args:
        is_shared: other processes may listen on the port as well (SO_REUSEPORT); the kernel spreads new connections
            over all of them.
        own_port: a second port where this process alone listens, so that it can be asked itself; 0 for none.

    Raises:
        OSError: an address cannot be bound, for example by a process that does not share it.
    """
    if not is_shared and not own_port:
        return None
    sockets = [_bound(host, port, is_shared=is_shared)]
    if own_port:
        try:
            sockets.append(_bound(host, own_port, is_shared=False))
        except OSError:
            sockets[0].close()
            raise
    return sockets


def _bound(host: str, port: int, *, is_shared: bool) -> socket.socket:
    """A socket that is bound but not listening yet: otherwise the kernel would send clients here before they can be
    accepted."""
    family, kind, protocol, _, address = socket.getaddrinfo(
        host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    sock = socket.socket(family, kind, protocol)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if is_shared:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        sock.bind(address)
    except OSError:
        sock.close()
        raise
    sock.setblocking(False)
    return sock
