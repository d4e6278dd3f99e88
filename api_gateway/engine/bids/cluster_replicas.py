"""``BID_ACK=replica`` on a cluster: each node has replicas of its own, and is asked about its own shards alone."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import RedisError

from api_gateway.engine.bids.acknowledge import Acknowledger, ReplicaAcknowledger, newest_entry
from shared.clients.cluster.addresses import Address
from shared.clients.cluster.client import ClusterClient
from shared.domain.errors import OutcomeUnknown
from shared.redis_layout.cursors import Lineage
from shared.supervision import loudly


@dataclass(slots=True)
class _OfNode:
    node: Redis
    acknowledger: ReplicaAcknowledger
    task: asyncio.Task[None] | None = None

    def begin(self, group: asyncio.TaskGroup) -> None:
        self.task = group.create_task(loudly(self.acknowledger.run), name="acknowledger-of-node")

    def end(self) -> None:
        if self.task is not None:
            self.task.cancel()


class ClusterReplicaAcknowledger:
    """One :class:`ReplicaAcknowledger` for each node; a node that does not answer delays nobody at another one."""

    def __init__(
        self,
        redis: ClusterClient,
        *,
        replicas: int,
        timeout_ms: int,
        run_of: Callable[[AbstractConnection], str],
    ) -> None:
        """As :class:`ReplicaAcknowledger`; ``replicas``: of each node."""
        self._redis = redis
        self._replicas = replicas
        self._timeout_ms = timeout_ms
        self._run_of = run_of
        self._of: Final[dict[Address, _OfNode]] = {}
        self._group: asyncio.TaskGroup | None = None

    async def confirm(self, shard: str, lineage: Lineage, entry: int) -> None:
        """See :class:`Acknowledger`."""
        try:
            async with asyncio.timeout(self._timeout_ms / 1_000):
                await self._redis.node_of(shard)
        except (RedisError, OSError, TimeoutError) as error:
            raise OutcomeUnknown from error
        placed = self._redis.placed(shard)
        if placed is None:
            raise OutcomeUnknown
        await self._at(*placed).confirm(shard, lineage, entry)

    async def secure(self, shard: str) -> None:
        """See :class:`Acknowledger`."""
        await self.confirm(shard, *await newest_entry(self._redis, shard))

    async def run(self) -> None:
        """Ask while somebody waits; until cancelled."""
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                for each in self._of.values():
                    each.begin(group)
                await asyncio.Event().wait()
        finally:
            self._group = None

    def _at(self, address: Address, node: Redis) -> ReplicaAcknowledger:
        known = self._of.get(address)
        if known is not None and known.node is node:
            return known.acknowledger
        for gone in [other for other in self._of if other == address or not self._redis.has_node(other)]:
            self._of.pop(gone).end()
        new = _OfNode(
            node,
            ReplicaAcknowledger(
                node,
                replicas=self._replicas,
                timeout_ms=self._timeout_ms,
                run_of=self._run_of,
                shards_may_move=True,
            ),
        )
        self._of[address] = new
        if self._group is not None:
            new.begin(self._group)
        return new.acknowledger


def open_replica_acknowledger(
    redis: Redis, *, replicas: int, timeout_ms: int, run_of: Callable[[AbstractConnection], str]
) -> Acknowledger:
    """The acknowledger for a single Redis, or for a cluster."""
    if isinstance(redis, ClusterClient):
        return ClusterReplicaAcknowledger(redis, replicas=replicas, timeout_ms=timeout_ms, run_of=run_of)
    return ReplicaAcknowledger(redis, replicas=replicas, timeout_ms=timeout_ms, run_of=run_of)
