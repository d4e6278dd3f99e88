"""TCP servers of tests that leave nothing behind: no task and no socket, whenever a peer comes and whatever it does."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from typing import Literal

from infrastructure.local.ports import HOST

_CHUNK_BYTES = 65_536

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
Way = Literal["requests", "answers"]
Treatment = Callable[[Way, bytes], Awaitable[bytes]]


@contextlib.asynccontextmanager
async def serving(handle: Handler, *, context: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """A server on a free port, which is yielded; each connection is reset when its handler ends.

    A handler may end in an OSError: the peer went away. Handlers that have not ended when the block ends are cancelled;
    any other error of one is raised then.
    """
    tasks: set[asyncio.Task[None]] = set()
    closing = False

    # Not a coroutine function: asyncio would run it in a task that nobody can await.
    def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if closing:
            writer.transport.abort()
        else:
            tasks.add(asyncio.create_task(_handled(handle, reader, writer)))

    server = await asyncio.start_server(accepted, HOST, 0, ssl=context)
    try:
        yield int(server.sockets[0].getsockname()[1])
    finally:
        closing = True
        server.close()
        for task in tasks:
            task.cancel()
        ends = await asyncio.gather(*tasks, return_exceptions=True)
    for end in ends:
        if isinstance(end, Exception):
            raise end


async def _handled(handle: Handler, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        async with _reset_at_the_end(writer):
            await handle(reader, writer)


async def relay(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, to_port: int, treat: Treatment | None = None
) -> None:
    """Pass on what comes from either side, until one of them has ended; for a handler of :func:`serving`.

    ``treat`` is given each chunk, may take its time, and returns what is passed on instead.

    Raises:
        OSError: nobody listens on ``to_port`` of this machine, or one of the two went away.
    """
    far_reader, far_writer = await asyncio.open_connection(HOST, to_port)
    async with _reset_at_the_end(far_writer):
        await _until_one_ends(
            _pump(reader, far_writer, "requests", treat),
            _pump(far_reader, writer, "answers", treat),
        )


async def _pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter, way: Way, treat: Treatment | None) -> None:
    while data := await source.read(_CHUNK_BYTES):
        sink.write(data if treat is None else await treat(way, data))
        await sink.drain()
    # What is still buffered is sent.
    sink.close()
    await sink.wait_closed()


async def _until_one_ends(*ways: Coroutine[None, None, None]) -> None:
    tasks = [asyncio.create_task(way) for way in ways]
    try:
        ended, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in ended:
        task.result()


@contextlib.asynccontextmanager
async def _reset_at_the_end(writer: asyncio.StreamWriter) -> AsyncIterator[None]:
    try:
        yield
    finally:
        # Not close(), which waits for ever until a peer that does not read has taken what is buffered.
        writer.transport.abort()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
