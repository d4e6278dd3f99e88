"""Servers that run already (REDIS_URL, NATS_URL, POSTGRES_URL): checks that they answer, and names them."""

from __future__ import annotations

import asyncio
from urllib.parse import urlsplit

from infrastructure.local.errors import StackError
from shared.server_urls import without_password

__all__ = ["endpoints", "require_reachable", "without_password"]

_DEFAULT_PORTS = {
    "redis": 6379,
    "rediss": 6379,
    "redis+cluster": 6379,
    "rediss+cluster": 6379,
    "nats": 4222,
    "tls": 4222,
    "postgresql": 5432,
    "postgres": 5432,
}
_CONNECT_TIMEOUT_S = 3.0


def endpoints(url: str) -> list[tuple[str, int]]:
    """Host and port of every server in the URL (NATS and PostgreSQL allow several, separated by commas).

    ValueError for text without a host, or with a port that is no number.
    """
    found: list[tuple[str, int]] = []
    scheme = "nats"
    for part in url.split(","):
        if "://" in part:
            scheme = part.split("://", 1)[0]
            split = urlsplit(part)
        else:
            split = urlsplit(f"{scheme}://{part}")
        if not split.hostname:
            raise ValueError("no host in it")
        found.append((split.hostname, split.port or _DEFAULT_PORTS.get(scheme, 0)))
    return found


async def require_reachable(setting: str, url: str) -> None:
    """Raise StackError unless at least one of the URL's servers accepts a connection within 3 s.

    The URL of a Unix socket is not checked.
    """
    if url.startswith("unix:") or "host=/" in url or "host=%2F" in url:
        return
    try:
        candidates = endpoints(url)
    except ValueError as error:
        raise StackError(f"{setting} is not the URL of a server ({error}): {without_password(url)}") from error
    reason = ""
    for host, port in candidates:
        try:
            async with asyncio.timeout(_CONNECT_TIMEOUT_S):
                _, writer = await asyncio.open_connection(host, port)
        except (OSError, TimeoutError) as error:
            reason = str(error) or "no answer"
            continue
        writer.close()
        return
    raise StackError(
        f"{setting} is {without_password(url)}, and nothing answers there ({reason}).\n"
        f"Start that server, or unset {setting} to have a private one started."
    )
