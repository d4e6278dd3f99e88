"""HTTP clients for crowds.

A pool of httpx looks through all of its connections for every request, which with a hundred of them takes longer than
the request. So each member of a crowd gets a client of their own.
"""

from __future__ import annotations

import contextlib
import ssl
from collections.abc import AsyncIterator

import httpx2 as httpx


@contextlib.asynccontextmanager
async def separate_clients(
    base_url: str, count: int, *, timeout_s: float = 30.0
) -> AsyncIterator[list[httpx.AsyncClient]]:
    """``count`` clients that share nothing; each keeps the connections that it needed."""
    # For connections without TLS nobody looks at it, but each client would read all certificates of the machine.
    unused = ssl.create_default_context()
    async with contextlib.AsyncExitStack() as stack:
        yield [
            await stack.enter_async_context(httpx.AsyncClient(base_url=base_url, timeout=30, verify=unused))
            for _ in range(count)
        ]
