"""A cache node for the benchmark: ``python -m bench.cache.peer NAME NODES BYTES`` serves until SIGTERM."""

from __future__ import annotations

import asyncio
import gc
import signal
import sys

import uvloop

from shared.read_cache.cache import GroupSpec
from shared.read_cache.membership.static import parse_nodes
from shared.read_cache.opening import open_read_cache
from shared.read_cache.settings import ReadCacheSettings


async def serve(name: str, nodes: str, value_bytes: int) -> None:
    """Answer every key with a value of ``value_bytes`` bytes."""
    value = bytes(value_bytes)

    async def load(key: str) -> bytes:
        return value

    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    node = next(node for node in parse_nodes(nodes) if node.name == name)
    settings = ReadCacheSettings(read_cache="cluster", read_cache_membership="static", read_cache_nodes=nodes)
    async with open_read_cache(settings, [GroupSpec("items", load)], node=node):
        await ended.wait()


if __name__ == "__main__":
    # As the services do: the garbage collector need not visit what lives as long as the process.
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)
    uvloop.run(serve(sys.argv[1], sys.argv[2], int(sys.argv[3])))
