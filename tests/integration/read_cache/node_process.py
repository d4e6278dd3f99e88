"""A node as a process, for tests that kill and stop it: ``python -m …node_process NAME HOST:PORT NATS_URL
ORIGIN_PORT``.

Its origin is a line server of the test: a key goes there, the value comes back, ``-`` for none.
"""

from __future__ import annotations

import asyncio
import signal
import sys

from shared.clients.nats import NatsLink
from shared.read_cache.cache import GroupSpec
from shared.read_cache.opening import open_read_cache
from shared.read_cache.ring import Node
from shared.read_cache.settings import ReadCacheSettings


async def main(name: str, address: str, nats_url: str, origin_port: int) -> None:
    async def load(key: str) -> bytes | None:
        reader, writer = await asyncio.open_connection("127.0.0.1", origin_port)
        try:
            writer.write(key.encode() + b"\n")
            line = (await reader.readline()).strip()
        finally:
            writer.transport.abort()
        return None if line == b"-" else line

    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    settings = ReadCacheSettings(
        read_cache="cluster",
        read_cache_membership="jetstream",
        read_cache_lease_s=4.0,
        # Whatever the machine does beside: nothing is to be shed here.
        read_cache_loads_max=200,
    )
    link = NatsLink(nats_url, name=f"cache node {name}")
    async with open_read_cache(settings, [GroupSpec("items", load)], node=Node(name, address), nats=link):
        await ended.wait()
    await link.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])))
