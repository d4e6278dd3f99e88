"""Makes a cluster of the nodes that REDIS_URL names, as one of the containers of compose. Safe to run again.

It runs at each start: containers come back at other addresses, so the nodes must find each other anew.
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from typing import Any, Final
from urllib.parse import quote

import click
from redis.exceptions import RedisError

from shared.clients.cluster.addresses import Address, ClusterUrl
from shared.clients.cluster.forming import Listens, form
from shared.clients.redis import open_redis, told_of

_BUS: Final = 10_000
"""Where a node listens for the others, beyond its port for clients."""
_WITHIN_S: Final = 120.0


async def formed(url: str, password: str, *, bus: int = _BUS, within_s: float = _WITHIN_S) -> None:
    """Make one cluster of these nodes.

    Args:
        url: ``redis+cluster://`` with all of its nodes.
        bus: what to add to a node's port to get the port for other nodes.

    Raises:
        ValueError: it is no such URL, or names fewer than three nodes.
        RedisError, OSError, TimeoutError: the nodes did not become a cluster in time.
    """
    cluster = ClusterUrl.parse(url)
    if len(cluster.seeds) < 3:
        raise ValueError("a cluster has three nodes or more: with fewer, none of them can tell who is away")
    login = f":{quote(password, safe='')}@" if password else ""
    clients: list[Any] = [
        open_redis(f"{cluster.scheme}://{login}{address}/0", timeout_s=5, connections_max=1)
        for address in cluster.seeds
    ]
    try:
        async with asyncio.timeout(within_s):
            await form(clients, [await _listens(address, bus) for address in cluster.seeds])
    finally:
        for client in clients:
            await client.aclose()


async def _listens(address: Address, bus: int) -> Listens:
    found = await asyncio.get_running_loop().getaddrinfo(
        address.host, address.port, family=socket.AF_INET, type=socket.SOCK_STREAM
    )
    return Listens(str(found[0][4][0]), address.port, address.port + bus)


def main() -> None:
    """Make the cluster of ``REDIS_URL``, with ``REDIS_PASSWORD``."""
    url = os.environ.get("REDIS_URL", "")
    try:
        asyncio.run(formed(url, os.environ.get("REDIS_PASSWORD", "")))
    except ValueError as error:
        click.echo(f"REDIS_URL: {error}", err=True)
        sys.exit(78)
    except (RedisError, OSError, TimeoutError) as error:
        click.echo(f"the nodes of Redis did not become a cluster: {told_of(error) or 'no answer in time'}", err=True)
        sys.exit(1)
    click.echo("the nodes of Redis are a cluster")


if __name__ == "__main__":
    main()
