"""A primary Redis and a real replica of it; and the day on which the replica becomes the primary."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

from redis.asyncio import Redis

from infrastructure.local.servers.redis_and_nats import redis_url as url_of
from infrastructure.local.stack import Stack
from shared.clients.redis import open_redis
from tests.faults.partitions.links import Links
from tests.faults.rig.harness import FaultRun
from tests.faults.rig.proxy import FaultyProxy
from tests.programs import add_replica
from tests.waiting import eventually


class Failover:
    """Services that reach the primary through proxies, and a replica that follows it through one of its own.

    Give :meth:`between` to :func:`fault_run`. The replica is asynchronous, as every replica of Redis is.
    """

    def __init__(self) -> None:
        self.links = Links()
        self.replication: FaultyProxy
        self._replica_port = 0

    async def __aenter__(self) -> Self:
        await self.links.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.links.__aexit__(*error)

    async def between(self, stack: Stack) -> Mapping[str, Mapping[str, str]]:
        """Start the replica, and put the proxies there."""
        self.replication = await self.links.keep(FaultyProxy(stack.ports.redis))
        self._replica_port = await self._follow(stack, self.replication.port)
        return await self.links.between(stack)

    async def _follow(self, stack: Stack, primary_port: int) -> int:
        """One more replica, with everything that its primary has; its port."""
        _, port = await add_replica(stack, primary_port, "--appendonly", "yes")
        redis = open_redis(url_of(port))
        try:
            await eventually(lambda: _is_in_step(redis), seconds=30)
        finally:
            await redis.aclose()
        return port

    def cut_off(self, run: FaultRun) -> None:
        """The replica hears nothing of its primary from now on."""
        self.replication.refuse()
        run.fault("the replica is cut off")

    async def promote(self, run: FaultRun) -> None:
        """The primary is gone; the replica takes its place, as it is, and gets a replica of its own."""
        redis = open_redis(url_of(self._replica_port))
        try:
            await redis.replicaof("NO", "ONE")
        finally:
            await redis.aclose()
        run.redis_url = url_of(self._replica_port)
        for line, proxy in self.links.proxies.items():
            if line.server == "redis":
                proxy.lead_to(self._replica_port)
        run.lost()
        run.fault("the replica is the primary")
        await self._follow(run.stack, self._replica_port)


async def _is_in_step(redis: Redis) -> bool:
    info = await redis.info("replication")
    return info["role"] == "slave" and info["master_link_status"] == "up" and not info["master_sync_in_progress"]
