"""Bodies that are far too large, announced or not: refused, and the gateway's memory does not grow with them."""

from __future__ import annotations

import asyncio
import contextlib

import psutil
import pytest

from infrastructure.local.services import API_GATEWAY
from infrastructure.local.stack import Stack

pytestmark = pytest.mark.asyncio(loop_scope="module")

TEN_MIB = 10 * 1024**2
PIECE = b"x" * 65_536
AT_ONCE = 30
GROWTH_MAX = 40 * 1024**2
"""Far below what 30 such bodies have: 300 MiB."""


async def send(stack: Stack, path: str, *, chunked: bool) -> bytes:
    """The status line of the answer to 10 MiB of JSON."""
    reader, writer = await asyncio.open_connection("127.0.0.1", stack.ports.gateway)
    length = "transfer-encoding: chunked" if chunked else f"content-length: {TEN_MIB}"
    writer.write(f"POST {path} HTTP/1.1\r\nhost: x\r\n{length}\r\n\r\n".encode())
    try:
        # Closed when it is refused: what is still on its way is dropped.
        with contextlib.suppress(OSError):
            for _ in range(TEN_MIB // len(PIECE)):
                writer.write(b"%x\r\n%b\r\n" % (len(PIECE), PIECE) if chunked else PIECE)
                await writer.drain()
        return await asyncio.wait_for(reader.readline(), 30)
    finally:
        writer.close()


@pytest.mark.parametrize("chunked", [False, True], ids=["announced", "in chunks"])
@pytest.mark.parametrize("path", ["/api/v1/items/large/bid", "/api/v1/items", "/api/v1/items:batch"])
async def test_row_21_ten_megabytes_are_refused_and_leave_nothing(
    gateway_stack: Stack, path: str, chunked: bool
) -> None:
    pid = gateway_stack.pid(API_GATEWAY)
    assert pid is not None
    gateway = psutil.Process(pid)
    before = gateway.memory_info().rss
    sending = [asyncio.create_task(send(gateway_stack, path, chunked=chunked)) for _ in range(AT_ONCE)]
    highest = before
    while not all(task.done() for task in sending):
        highest = max(highest, gateway.memory_info().rss)
        await asyncio.sleep(0.02)
    for task in sending:
        assert task.result().startswith(b"HTTP/1.1 413 "), task.result()
    assert highest - before < GROWTH_MAX, f"it grew by {(highest - before) / 1024**2:.0f} MiB"
