"""A TCP proxy that behaves badly on demand: it delays, cuts, eats the answers of a server, or lets nothing pass."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Self

from tests.tcp import Way, relay, serving


class FaultyProxy:
    """Stands between a client and the server on ``target_port`` of this machine.

    Clients connect to ``port``. ``eaten`` counts the bytes of answers that were dropped, ``held`` the chunks that had
    to wait because a way was stopped, ``cuts`` the connections that were cut; ``on_answer`` is called before an answer
    is passed on.
    """

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._server = contextlib.AsyncExitStack()
        self._writers: set[asyncio.StreamWriter] = set()
        self._eats = False
        self._refuses = False
        self._ate = asyncio.Event()
        self._passes: dict[Way, asyncio.Event] = {"requests": asyncio.Event(), "answers": asyncio.Event()}
        for way in self._passes.values():
            way.set()
        self._resets = 0
        self.held = 0
        self.on_answer: Callable[[], object] | None = None
        self.delay_s = 0.0
        self.eaten = 0
        self.cuts = 0
        self.port = 0

    async def __aenter__(self) -> Self:
        self.port = await self._server.enter_async_context(serving(self._serve))
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._server.aclose()

    def cut(self) -> None:
        """Reset every connection that is open now."""
        for writer in list(self._writers):
            self.cuts += 1
            writer.transport.abort()

    def lead_to(self, port: int) -> None:
        """Another server of this machine is behind it from now on; connections to the former one are reset."""
        self._target_port = port
        self.cut()

    @contextlib.asynccontextmanager
    async def eating_answers(self) -> AsyncIterator[None]:
        """Requests reach the server, answers reach nobody; at the end the connections that wait for them are cut."""
        self._eats = True
        self._ate.clear()
        try:
            yield
        finally:
            self._eats = False
            self.cut()

    async def ate(self, within_s: float = 10.0) -> None:
        """Wait until at least one answer was eaten since :meth:`eating_answers` began."""
        async with asyncio.timeout(within_s):
            await self._ate.wait()

    @contextlib.asynccontextmanager
    async def away(self) -> AsyncIterator[None]:
        """The server cannot be reached: open connections are cut, new ones are reset."""
        self._refuses = True
        self.cut()
        try:
            yield
        finally:
            self._refuses = False

    def refuse(self) -> None:
        """Cut what is open, and reset what comes, until :meth:`heal`."""
        self._refuses = True
        self.cut()

    def stop(self, *ways: Way) -> None:
        """Let nothing pass on these ways, until :meth:`heal`: connections stay, and nobody is told.

        The bytes are kept, in the proxy and in the kernel's buffers until these are full, as TCP keeps what nobody has
        confirmed.
        """
        for way in ways:
            self._passes[way].clear()

    def heal(self, *, late: bool = True) -> None:
        """Let everything pass again.

        Args:
            late: what was kept arrives now, whatever its senders believe by now, as TCP sends it once more. Otherwise
                the connections are reset, as by a firewall that has forgotten them, and what was kept never arrives.
        """
        self._refuses = False
        if not late:
            self._resets += 1
            self.cut()
        for way in self._passes.values():
            way.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refuses:
            return
        self._writers.add(writer)
        try:
            await relay(reader, writer, self._target_port, self._spoil)
        finally:
            self._writers.discard(writer)

    async def _spoil(self, way: Way, data: bytes) -> bytes:
        if not self._passes[way].is_set():
            self.held += 1
            resets = self._resets
            await self._passes[way].wait()
            if resets != self._resets:
                raise ConnectionResetError("what was kept is forgotten")
        if way == "requests":
            return data
        if self.delay_s:
            await asyncio.sleep(self.delay_s)
        if self._eats:
            self.eaten += len(data)
            self._ate.set()
            return b""
        if self.on_answer is not None:
            self.on_answer()
        return data
