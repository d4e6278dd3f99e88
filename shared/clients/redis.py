"""Redis: one way to open it, with every retry switched off and every call bounded."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff


def open_redis(
    url: str,
    *,
    timeout_s: float = 5.0,
    connections_max: int = 32,
    on_connect: Callable[[AbstractConnection], Awaitable[None]] | None = None,
) -> Redis:
    """A client that connects on first use.

    The library would repeat a command after a time-out by itself. A script that ran and whose answer got lost would
    then run twice, so retries are off here: the caller knows which of its calls may be repeated.

    Args:
        url: ``redis://`` or ``rediss://``.
        timeout_s: for connecting, for each answer, and for a free connection of the pool.
        connections_max: upper bound of the pool; callers wait for a free connection, at most ``timeout_s``.
        on_connect: awaited on every new connection instead of the library's handshake, ``connection.on_connect()``.
    """
    pool = BlockingConnectionPool.from_url(
        url,
        max_connections=connections_max,
        timeout=timeout_s,
        protocol=2,
        socket_connect_timeout=timeout_s,
        socket_timeout=timeout_s,
        socket_keepalive=True,
        retry=Retry(NoBackoff(), 0),
        retry_on_timeout=False,
        health_check_interval=0,
        redis_connect_func=on_connect,
    )
    return Redis.from_pool(pool)
