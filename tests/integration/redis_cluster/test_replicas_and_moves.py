"""``BID_ACK=replica`` while the shard moves to another node: whose replicas have answered?"""

from __future__ import annotations

import asyncio
import signal
from typing import Any

import pytest

from api_gateway.engine.bids.acknowledge import ReplicaAcknowledger
from infrastructure.local.stack import Stack
from shared.clients.redis import open_redis
from shared.domain.errors import OutcomeUnknown
from shared.redis_layout.cursors import Lineage
from shared.redis_layout.keys import cursors_key, mark_key
from tests.faults.redis_cluster.moving import Nodes
from tests.faults.redis_cluster.replicas import add_replicas_of
from tests.waiting import eventually

pytestmark = [pytest.mark.integration, pytest.mark.timeout(200)]

_MOVES, _STAYS = "s11", "s12"


async def test_replicas_of_a_node_that_gives_the_shard_away_confirm_nothing(cluster: Stack, nodes: Nodes) -> None:
    """1. The mark is written, behind the bid. 2. The replica has not answered yet; the shard moves. 3. The replica
    answers: it has had the mark, and has dropped the shard since. The node's other shard is confirmed."""
    home = await nodes.port_of(_STAYS)
    await nodes.move(_MOVES, home, "atomic")
    other = next(port for port in nodes.clients if port != home)
    replica = (await add_replicas_of(cluster, nodes, [home]))[home]
    name = f"redis-replica-{replica}"
    client: Any = nodes.clients[home]
    run = str((await client.info("server"))["run_id"])
    for shard in (_MOVES, _STAYS):
        await client.hset(cursors_key(shard), mapping={"epoch": "1", "run": run})
    of_node = open_redis(f"redis://127.0.0.1:{home}/0", timeout_s=30)
    acknowledger = ReplicaAcknowledger(
        of_node, replicas=1, timeout_ms=60_000, run_of=lambda _: run, shards_may_move=True
    )
    running = asyncio.create_task(acknowledger.run())
    try:
        await asyncio.gather(*(acknowledger.confirm(shard, Lineage(run, 1), 1) for shard in (_MOVES, _STAYS)))
        for shard in (_MOVES, _STAYS):
            await client.delete(mark_key(shard))
        cluster.kill(name, signal.SIGSTOP)
        waiting = {
            shard: asyncio.create_task(acknowledger.confirm(shard, Lineage(run, 1), 2)) for shard in (_MOVES, _STAYS)
        }

        async def is_marked() -> bool:
            return all([await client.exists(mark_key(shard)) for shard in (_MOVES, _STAYS)])

        await eventually(is_marked, "both shards have a mark", seconds=30)
        await nodes.move(_MOVES, other, "atomic")
        assert not any(task.done() for task in waiting.values())
        cluster.kill(name, signal.SIGCONT)
        await waiting[_STAYS]
        with pytest.raises(OutcomeUnknown):
            await waiting[_MOVES]
    finally:
        cluster.kill(name, signal.SIGCONT)
        running.cancel()
        await asyncio.wait([running])
        await of_node.aclose()
        await client.delete(cursors_key(_STAYS))
