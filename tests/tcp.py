"""TCP servers of tests that leave nothing behind: no task and no socket, whenever a peer comes and whatever it does."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from socketserver import BaseServer
from typing import Literal

from infrastructure.local.servers.ports import HOST

_CHUNK_BYTES = 65_536

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
Way = Literal["requests", "answers"]
Treatment = Callable[[Way, bytes], Awaitable[bytes]]


@contextlib.contextmanager
def served_by_thread(server: BaseServer) -> Iterator[None]:
    """Let a server of the standard library answer until the block ends; then it is closed. By default it would look
    only twice a second whether it is to end."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextlib.asynccontextmanager
async def serving(handle: Handler, *, context: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """A server on a free port, which is yielded; each connection is reset when its handler ends.

    A handler may end in an OSError: the peer went away. Handlers that have not ended when the block ends are cancelled;
    any other error of one is raised then.
    """
    connections: dict[asyncio.Task[None], asyncio.StreamWriter] = {}
    closing = False

    # Not a coroutine function: asyncio would run it in a task that nobody can await.
    def accepted(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if closing:
            writer.transport.abort()
        else:
            connections[asyncio.create_task(_handled(handle, reader, writer))] = writer

    server = await asyncio.start_server(accepted, HOST, 0, ssl=context)
    try:
        yield int(server.sockets[0].getsockname()[1])
    finally:
        await _accept_no_more(server)
        closing = True
        server.close()
        for task in connections:
            task.cancel()
        ends = await asyncio.gather(*connections, return_exceptions=True)
        for writer in connections.values():
            # A task that was cancelled before its first step has not even begun to.
            async with _reset_at_the_end(writer):
                pass
    for end in ends:
        if isinstance(end, Exception):
            raise end


async def _accept_no_more(server: asyncio.Server) -> None:
    """Stop accepting, and wait until each accepted connection is known; a server that is closed before then loses it.

    1. The loop accepts a connection, and makes a task which is to give it a transport.
    2. close() lets go of the listening sockets.
    3. The task begins, finds no listening socket, and fails; the accepted socket is left to the garbage collector.
    """
    loop = asyncio.get_running_loop()
    for listening in server.sockets:
        loop.remove_reader(listening.fileno())
    # One turn of the loop for the transport, one for telling us; of a TLS connection we hear after its handshake.
    for _ in range(2):
        await asyncio.sleep(0)


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
    await until_closed(sink)


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
            await until_closed(writer)


async def until_closed(writer: asyncio.StreamWriter) -> None:
    """Wait until it is. The future behind ``wait_closed`` is shared: cancelling one who waits would cancel the others.

    Raises:
        OSError: it was lost.
    """
    waiting = asyncio.ensure_future(writer.wait_closed())
    # A caller that was cancelled does not fetch the error.
    waiting.add_done_callback(lambda ended: ended.cancelled() or ended.exception())
    await asyncio.wait({waiting})
    waiting.result()
