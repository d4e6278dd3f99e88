"""Readiness probes: small requests on plain sockets, with the answer yes or no."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import NamedTuple

import asyncpg


class Readiness(NamedTuple):
    """The answer of a probe. `detail`: what a server that is not ready answered, or why it did not answer."""

    ok: bool
    detail: str = ""


Probe = Callable[[], Awaitable[Readiness]]

_PROBE_TIMEOUT_S = 2.0
_ANSWER_BYTES_MAX = 64 * 1024
_DETAIL_CHARACTERS_MAX = 400


async def exchange(host: str, port: int, request: bytes, until: bytes | None) -> bytes:
    """Send `request`, read up to and including `until` (None: to the end of the stream, at most 64 KiB).

    Raises OSError, TimeoutError or asyncio.IncompleteReadError if there is no such answer within 2 s.
    """
    async with asyncio.timeout(_PROBE_TIMEOUT_S):
        reader, writer = await asyncio.open_connection(host, port, limit=_ANSWER_BYTES_MAX)
        try:
            writer.write(request)
            await writer.drain()
            if until is not None:
                return await reader.readuntil(until)
            chunks = b""
            while len(chunks) < _ANSWER_BYTES_MAX and (chunk := await reader.read(_ANSWER_BYTES_MAX)):
                chunks += chunk
            return chunks
        finally:
            writer.close()


def get_request(host: str, port: int, path: str) -> bytes:
    """The bytes of a GET. In the Host header an IPv6 address must be in brackets (RFC 3986)."""
    name = f"[{host}]" if ":" in host else host
    return f"GET {path} HTTP/1.1\r\nHost: {name}:{port}\r\nConnection: close\r\n\r\n".encode()


async def http_get(host: str, port: int, path: str) -> tuple[int, bytes]:
    """Status and body of a GET; raises like `exchange`, and ValueError for an answer that is not HTTP."""
    head, _, body = (await exchange(host, port, get_request(host, port, path), None)).partition(b"\r\n\r\n")
    return int(head.split(b" ", 2)[1]), body


def http_ready(host: str, port: int, path: str) -> Probe:
    """Ready when a GET of the path answers 200."""

    async def probe() -> Readiness:
        try:
            status, body = await http_get(host, port, path)
        except (OSError, TimeoutError, ValueError, IndexError) as error:
            return _unanswered(error)
        text = body.decode(errors="replace").strip()[:_DETAIL_CHARACTERS_MAX]
        return Readiness(status == 200, f"{path} answered {status}: {text}")

    return probe


def redis_ready(host: str, port: int, login: tuple[str, str] | None = None) -> Probe:
    """Ready when Redis answers PING with PONG; while it loads its file it answers -LOADING.

    ``login``: a user and password, where it answers nobody else.
    """

    async def ask() -> bytes:
        if login is None:
            return await exchange(host, port, b"PING\r\n", b"\r\n")
        # Without AUTH the answer would be NOAUTH, even of a server that is still loading.
        request = f"AUTH {login[0]} {login[1]}\r\nPING\r\nQUIT\r\n".encode()
        return (await exchange(host, port, request, None)).partition(b"+OK\r\n")[2][: len(b"+PONG\r\n")]

    async def probe() -> Readiness:
        try:
            answer = await ask()
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError) as error:
            return _unanswered(error)
        return Readiness(answer == b"+PONG\r\n", answer.decode(errors="replace").strip())

    return probe


def postgres_ready(url: str) -> Probe:
    """Ready when a connection to the database itself can run a query."""

    async def probe() -> Readiness:
        try:
            connection = await asyncpg.connect(url, timeout=_PROBE_TIMEOUT_S, command_timeout=_PROBE_TIMEOUT_S)
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            return _unanswered(error)
        try:
            await connection.execute("SELECT 1")
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
            return _unanswered(error)
        finally:
            connection.terminate()
        return Readiness(True)

    return probe


def _unanswered(error: Exception) -> Readiness:
    return Readiness(False, str(error) or "no answer in time")
