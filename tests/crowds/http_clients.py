"""An HTTP client for crowds, and what makes all others cheap to open.

A pool of httpx looks through all of its connections for every request, which with a hundred of them takes longer than
the request. aiohttp has no such search, and its parsers are in C.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import ssl
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Any, Final

import aiohttp
import httpcore2

_NAMES_OF_AUTHORITIES: Final = ("SSL_CERT_FILE", "SSL_CERT_DIR")


def read_authorities_once() -> None:
    """Let the clients of httpx2 share one TLS context.

    Each client reads all authorities of the machine, also for a plain address: 20 ms, a thousand times in a run.
    """
    read = httpcore2.default_ssl_context

    @functools.cache
    def context_of(trust_env: bool, *named: str | None) -> ssl.SSLContext:
        return read(_trust_env=trust_env)

    def shared(*, _trust_env: bool = True) -> ssl.SSLContext:
        return context_of(_trust_env, *map(os.environ.get, _NAMES_OF_AUTHORITIES))

    httpcore2.default_ssl_context = shared


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer that was read to its end."""

    status_code: int
    text: str

    def json(self, parse_float: Callable[[str], Any] | None = None) -> Any:
        """Its body as JSON."""
        return json.loads(self.text, parse_float=parse_float)


class CrowdClient:
    """A client with as many connections as it has requests at once; raises aiohttp.ClientError and TimeoutError."""

    def __init__(self, session: aiohttp.ClientSession) -> None:
        self._session = session

    async def post(self, path: str, body: bytes) -> Answer:
        """Send a JSON text."""
        headers = {"Content-Type": "application/json"}
        async with self._session.post(path, data=body, headers=headers) as answer:
            return Answer(answer.status, await answer.text())


@contextlib.asynccontextmanager
async def crowd_client(base_url: str, *, timeout_s: float = 30.0) -> AsyncIterator[CrowdClient]:
    """A client of a crowd, closed afterwards."""
    timeout = aiohttp.ClientTimeout(total=timeout_s)
    async with aiohttp.ClientSession(base_url, connector=aiohttp.TCPConnector(limit=0), timeout=timeout) as session:
        yield CrowdClient(session)
