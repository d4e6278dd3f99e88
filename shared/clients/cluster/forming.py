"""Makes one cluster of servers in cluster mode, or has those of an earlier start find each other. Safe to run again."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from shared.clients.cluster.slots import SLOT_COUNT

_LOOK_S: Final = 0.1


class Listens(NamedTuple):
    """Where the others reach a node: by its address, not by a name."""

    ip: str
    port: int
    bus_port: int


async def form(clients: Sequence[Any], listens: Sequence[Listens]) -> None:
    """Share the slots among nodes that are new, and wait until each node knows of all of them, and who has which slots.
    The caller bounds it.

    Args:
        clients: one of each node, in the order of their numbers.
        listens: of the same nodes.

    Raises:
        RedisError, OSError: a node does not answer.
    """
    count = len(clients)
    for number, client in enumerate(clients):
        if not await _own_slots(client):
            first, last = SLOT_COUNT * number // count, SLOT_COUNT * (number + 1) // count - 1
            await client.execute_command("CLUSTER", "ADDSLOTSRANGE", first, last)
            # A node of a new cluster must not take the epoch of another one.
            await client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
    for each in listens[1:]:
        # Nodes of an earlier start remember each other's former addresses, which may have changed since.
        await clients[0].execute_command("CLUSTER", "MEET", *each)
    while True:
        if all([await _knows(client, count) for client in clients]):
            return
        # No node announces that it has heard of all others.
        await asyncio.sleep(_LOOK_S)


async def _own_slots(client: Any) -> bool:
    """Whether the node has slots."""
    answer: Any = await client.execute_command("CLUSTER", "NODES")
    lines = answer.decode().splitlines() if isinstance(answer, bytes) else [str(line) for line in answer]
    own = next(line.split() for line in lines if "myself" in line)
    return len(own) > 8


async def _knows(client: Any, count: int) -> bool:
    info: Any = await client.execute_command("CLUSTER", "INFO")
    text = info.decode() if isinstance(info, bytes) else str(info)
    fields = dict(line.split(":", 1) for line in text.split() if ":" in line)
    is_ok = fields.get("cluster_state") == "ok" and fields.get("cluster_slots_ok") == str(SLOT_COUNT)
    return is_ok and int(fields.get("cluster_known_nodes", 0)) >= count
