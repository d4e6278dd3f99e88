"""The nodes of the read cache, and their front end, as processes of this stack."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from infrastructure.local.processes import ProcessSpec
from infrastructure.local.servers.ports import HOST, Ports, Wanted, free_ports
from infrastructure.local.services import PURPOSES, host_setting, reachable_host, service_spec

CACHE_NODE: Final = "cache_node"
FRONT_END: Final = "cache_front_end"
NODES_MAX: Final = 12


def node_names(count: int) -> tuple[str, ...]:
    """The process names: `cache_node-1`, `cache_node-2`, …, which are also their names in the ring."""
    return tuple(f"{CACHE_NODE}-{number}" for number in range(1, count + 1))


def port_of(name: str, ports: Ports) -> int | None:
    """Where clients reach a node (gRPC) or the front end (HTTP); None for any other process."""
    if name == FRONT_END:
        return ports.cache
    kind, _, number = name.partition("-")
    return ports.cache_node + int(number) - 1 if kind == CACHE_NODE and number.isdecimal() else None


def wanted_ports(count: int, ports: Ports, environment: Mapping[str, str]) -> list[Wanted]:
    """The ports that have to be free; those of the nodes follow each other."""
    if not count:
        return []
    nodes = [
        Wanted("cache_node", PURPOSES["cache_node"] if number == 0 else f"cache node {number + 1}", port)
        for number, port in enumerate(range(ports.cache_node, ports.cache_node + count))
    ]
    return [Wanted("cache", PURPOSES["cache"], ports.cache, reachable_host("cache", environment)), *nodes]


def cache_specs(count: int, ports: Ports, data_dir: Path, environment: Mapping[str, str]) -> list[ProcessSpec]:
    """How to run so many nodes and one front end; nothing for 0. The nodes' HTTP ports are free ones."""
    if not count:
        return []
    names = node_names(count)
    specs = [
        service_spec(
            name,
            CACHE_NODE,
            HOST,
            http_port,
            data_dir,
            {
                **environment,
                "CACHE_ROLE": "node",
                host_setting("cache"): HOST,
                "CACHE_PORT": str(http_port),
                "CACHE_NODE_NAME": name,
                "CACHE_NODE_PORT": str(port_of(name, ports)),
            },
        )
        for name, http_port in zip(names, free_ports(count), strict=True)
    ]
    host = reachable_host("cache", environment)
    front_end = {**environment, "CACHE_ROLE": "front_end"}
    return [*specs, service_spec(FRONT_END, CACHE_NODE, host, ports.cache, data_dir, front_end)]
