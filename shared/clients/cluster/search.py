"""A search for keys over all nodes of a cluster."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from typing import Any, Final

from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from shared import names
from shared.clients.cluster.client import ClusterClient, NotPlaced, nodes_of
from shared.clients.cluster.slots import SLOTS

_ON_ITS_WAY: Final = re.compile(r"\[(\d+)-[<>]-")
"""A slot that the node which is asked gives away, or gets, as ``CLUSTER NODES`` shows it."""


async def every_key(redis: Redis, pattern: str, *, count: int) -> AsyncIterator[bytes]:
    """The keys of a single Redis, or of all nodes of a cluster, that match.

    Raises:
        RedisError: as well where shards moved meanwhile, or are on their way key by key: keys of theirs may have been
            passed over.
    """
    nodes, missing = await nodes_of(redis, names.SHARDS, fresh=True)
    if missing:
        raise NotPlaced(f"no node of the cluster has shards {', '.join(missing)} now")
    for node in nodes:
        async for key in node.redis.scan_iter(match=pattern, count=count):
            yield key
    after, _ = await nodes_of(redis, names.SHARDS, fresh=True)
    if [(node.address, node.shards) for node in after] != [(node.address, node.shards) for node in nodes]:
        raise RedisConnectionError("shards moved to other nodes meanwhile; begin again")
    if isinstance(redis, ClusterClient):
        for node in nodes:
            # A key that moved from a node not yet searched to one already searched is passed over, and the map does not
            # show it.
            if await _is_moving_keys(node.redis):
                raise RedisConnectionError("shards are on their way to other nodes; begin again when they have arrived")


async def _is_moving_keys(node: Any) -> bool:
    """Whether a shard's keys are moving from this node to another one, or to this node, key by key."""
    answer = await node.execute_command("CLUSTER", "NODES")
    text = answer.decode() if isinstance(answer, bytes) else str(answer)
    return any(int(slot) in SLOTS.values() for slot in _ON_ITS_WAY.findall(text))
