"""A cluster of Valkey on this machine: `bidding up --valkey-nodes 3`.

The nodes are primaries without replicas: what one machine loses, it loses together. Each has its own folder, with its
part of the data and what it knows of the others; so the cluster is there again after the next start.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from redis.exceptions import RedisError

from infrastructure.local.errors import StackError
from infrastructure.local.processes import ProcessSpec
from infrastructure.local.servers.ports import HOST, Ports, Wanted
from infrastructure.local.servers.redis_and_nats import AppendFsync, RedisAccess, redis_spec
from shared.clients.cluster.addresses import Address, ClusterUrl
from shared.clients.cluster.forming import Listens, form
from shared.clients.redis import open_redis

NODES_MAX: Final = 12
_FORM_S: Final = 60.0
_CONFIG: Final = """
cluster-enabled yes
cluster-config-file nodes.conf
cluster-port {bus}
cluster-node-timeout 5000
# While one node is away, the others go on serving what they have.
cluster-require-full-coverage no
"""


@dataclasses.dataclass(frozen=True, slots=True)
class ValkeyCluster:
    """Its nodes listen on the ports after each other from `first_port` on, and behind these for one another."""

    count: int
    first_port: int

    @property
    def names(self) -> list[str]:
        """The names of its processes, and of their folders in the data directory."""
        return [name_of(number) for number in range(1, self.count + 1)]

    @property
    def ports(self) -> list[int]:
        """Where its clients connect to, by node."""
        return list(range(self.first_port, self.first_port + self.count))

    @property
    def url(self) -> str:
        """The value for REDIS_URL."""
        return "redis+cluster://" + ",".join(f"{HOST}:{port}" for port in self.ports)

    @property
    def wanted(self) -> list[Wanted]:
        """All ports that it needs."""
        what = f"Redis, which takes {2 * self.count} ports in a row from that one on"
        return [Wanted("redis", what, port) for port in range(self.first_port, self.first_port + 2 * self.count)]

    def bus_port(self, port: int) -> int:
        """Where the other nodes reach the node whose clients connect to this port."""
        return port + self.count

    def spec(
        self,
        name: str,
        data_dir: Path,
        environment: Mapping[str, str],
        appendfsync: AppendFsync = "always",
        access: RedisAccess | None = None,
    ) -> ProcessSpec:
        """How to run a node. BinaryMissing where there is no redis-server."""
        port = self.ports[self.names.index(name)]
        return node_spec(name, port, self.bus_port(port), data_dir, environment, appendfsync, access)

    async def form(self, url: str = "") -> None:
        """Make one cluster of nodes that are new, or wait until those of an earlier start have found each other.

        ``url``: of the cluster, with the password of its owner, where it has one.

        Raises:
            StackError: they have not, within a minute.
        """
        login = ClusterUrl.parse(url or self.url)
        addresses = [login.url_of(Address(HOST, port)) for port in self.ports]
        clients: list[Any] = [open_redis(each, timeout_s=5, connections_max=1) for each in addresses]
        try:
            async with asyncio.timeout(_FORM_S):
                await form(clients, [Listens(HOST, port, self.bus_port(port)) for port in self.ports])
        except (RedisError, OSError, TimeoutError) as error:
            raise StackError(
                f"The {self.count} nodes of Redis did not become a cluster: {str(error) or 'no answer in time'}."
            ) from error
        finally:
            for client in clients:
                await client.aclose()


def name_of(number: int) -> str:
    """The name of a node's process: `redis-1`."""
    return f"redis-{number}"


def is_redis(name: str) -> bool:
    """Whether a process of this name is Redis, or a node of it."""
    return name.partition("-")[0] == "redis"


def node_spec(
    name: str,
    port: int,
    bus_port: int,
    data_dir: Path,
    environment: Mapping[str, str],
    appendfsync: AppendFsync = "always",
    access: RedisAccess | None = None,
) -> ProcessSpec:
    """How to run one node. `bus_port`: where the other nodes reach it."""
    more = _CONFIG.format(bus=bus_port)
    return redis_spec(data_dir, port, environment, appendfsync, name=name, more_config=more, access=access)


def cluster_for(data_dir: Path, ports: Ports, count: int) -> ValkeyCluster | None:
    """The cluster of a data directory, None where its Redis is a single one.

    Raises:
        StackError: the directory has the data of another number of nodes, which would seem to be lost.
    """
    there = len(list(data_dir.glob("redis-[0-9]*/nodes.conf")))
    if there and there != count:
        raise StackError(
            f"{data_dir} has the data of {there} nodes of Redis. Start it with --valkey-nodes {there}, "
            "or begin anew with another --data-dir."
        )
    if count > 1 and (data_dir / "redis").exists():
        raise StackError(
            f"{data_dir} has the data of a single Redis, which does not spread over nodes by itself. "
            "Start it without --valkey-nodes, or begin anew with another --data-dir."
        )
    return ValkeyCluster(count, ports.redis) if count > 1 else None
