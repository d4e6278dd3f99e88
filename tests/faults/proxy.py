"""A TCP proxy that behaves badly on demand: it delays, cuts, or eats the answers of a server."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Self

from infrastructure.local.ports import HOST

_CHUNK_BYTES = 65_536


class FaultyProxy:
    """Stands between a client and the server on ``target_port`` of this machine.

    ``eaten`` counts the bytes of answers that were dropped, ``cuts`` the connections that were cut; ``on_answer`` is
    called before an answer is passed on.
    """

    def __init__(self, target_port: int) -> None:
        self._target_port = target_port
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()
        self._eats = False
        self._refuses = False
        self._ate = asyncio.Event()
        self.on_answer: Callable[[], object] | None = None
        self.delay_s = 0.0
        self.eaten = 0
        self.cuts = 0

    @property
    def port(self) -> int:
        """Where clients connect to."""
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, HOST, 0)
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self.cut()

    def cut(self) -> None:
        """Reset every connection that is open now."""
        for writer in list(self._writers):
            self.cuts += 1
            writer.transport.abort()

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

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self._refuses:
            writer.transport.abort()
            return
        try:
            to_reader, to_writer = await asyncio.open_connection(HOST, self._target_port)
        except OSError:
            writer.transport.abort()
            return
        both = {writer, to_writer}
        self._writers |= both
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pass_on(reader, to_writer, both, answers=False))
                group.create_task(self._pass_on(to_reader, writer, both, answers=True))
        finally:
            self._writers -= both

    async def _pass_on(
        self,
        source: asyncio.StreamReader,
        sink: asyncio.StreamWriter,
        both: set[asyncio.StreamWriter],
        *,
        answers: bool,
    ) -> None:
        with contextlib.suppress(OSError):
            while data := await source.read(_CHUNK_BYTES):
                if answers and self.delay_s:
                    await asyncio.sleep(self.delay_s)
                if answers and self._eats:
                    self.eaten += len(data)
                    self._ate.set()
                    continue
                if answers and self.on_answer is not None:
                    self.on_answer()
                sink.write(data)
                await sink.drain()
        for writer in both:
            writer.close()
