"""Redis: one way to open it, with every retry switched off and every call bounded."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import cache
from typing import Any, cast

from hiredis import pack_command
from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import ResponseError
from redis.typing import EncodableT

from shared.clients.cluster.addresses import ClusterUrl, is_cluster_url
from shared.clients.cluster.client import ClusterClient

OnConnect = Callable[[AbstractConnection], Awaitable[None]]


def open_redis(
    url: str,
    *,
    timeout_s: float = 5.0,
    connections_max: int = 32,
    on_connect: OnConnect | None = None,
) -> Redis:
    """A client that connects on first use.

    The library would repeat a command after a time-out by itself. A script that ran and whose answer got lost would
    then run twice, so retries are off here: the caller knows which of its calls may be repeated.

    Args:
        url: ``redis://`` or ``rediss://`` of one server; ``redis+cluster://`` or ``rediss+cluster://`` of one or more
            nodes of a cluster, separated by commas: the client is then a :class:`ClusterClient`.
        timeout_s: for connecting, for each answer, and for a free connection of the pool.
        connections_max: upper bound of the pool, of each node's in a cluster; callers wait for a free connection, at
            most ``timeout_s``.
        on_connect: awaited on every new connection instead of the library's handshake, ``connection.on_connect()``.

    Raises:
        ValueError: it is no such URL.
    """
    if not is_cluster_url(url):
        return _open(url, timeout_s, connections_max, on_connect)
    cluster = ClusterUrl.parse(url)
    return ClusterClient(
        cluster.seeds,
        lambda address: _open(cluster.url_of(address), timeout_s, connections_max, on_connect),
        lambda address: _open(cluster.url_of(address), timeout_s, 1, None),
        timeout_s=timeout_s,
    )


def _open(url: str, timeout_s: float, connections_max: int, on_connect: OnConnect | None) -> Redis:
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
    pool.connection_class = _packed_in_c(cast(Any, pool.connection_class))
    return Redis.from_pool(pool)


class _PackedInC:
    """Mixed into a connection of the library: hiredis puts the commands together, as it takes the answers apart. The
    library's own way is Python, and costs a bid on one of a thousand items two microseconds."""

    def pack_command(self, *args: EncodableT) -> list[bytes]:
        """The bytes of a command, whose first word may be several."""
        head = args[0]
        words = head.split() if isinstance(head, str) else (head,)
        return [pack_command((*words, *args[1:]))]


@cache
def _packed_in_c(connection: type[Any]) -> Any:
    return type(f"PackedInC{connection.__name__}", (_PackedInC, connection), {})


def told_of(error: BaseException) -> str:
    """The text of an error of Redis that anybody may see. Of errors of the library and of the system, whose texts name
    addresses, it is the type alone."""
    of_library = type(error).__module__.partition(".")[0] in ("redis", "builtins", "asyncio")
    if of_library and not isinstance(error, ResponseError):
        return type(error).__name__
    return str(error)
