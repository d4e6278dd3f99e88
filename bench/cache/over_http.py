"""Closed items over HTTP: from a node, and from a gateway that has no cache, one of its own, or asks a node.

The server that is asked has a core of its own. The node behind a gateway shares the other core with the client, Redis
and PostgreSQL. Every item is asked for in turn, so often that it is kept and so seldom that the gateway does not mirror
it. CPU time is that of gateway and node together.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterator
from typing import Final

import click
import psutil
import uvloop

from bench.cache.closed_items import item_of
from bench.cache.result import CacheResult
from bench.clients.closed_loop import Tally, load
from bench.gateway import served
from infrastructure.local.cache_nodes import CACHE_NODE
from infrastructure.local.servers.ports import free_ports
from infrastructure.local.services import API_GATEWAY
from infrastructure.local.stack import Stack
from load_tests.generator.samples import percentiles_ms

ITEMS: Final = 2_000
CONNECTIONS: Final = 128
NODE: Final = "node, HTTP"
GATEWAY_OFF: Final = "gateway, off"
GATEWAY_LOCAL: Final = "gateway, local"
GATEWAY_CLUSTER: Final = "gateway, cluster"
NAMES: Final = (NODE, GATEWAY_OFF, GATEWAY_LOCAL, GATEWAY_CLUSTER)
_WARM_UP_S: Final = 0.5
_FILLS_MAX: Final = 60
"""Seconds, in which every item is asked for once, before anything is measured."""
_SETTINGS: Final = {"LOG_LEVEL": "ERROR", "READ_CACHE_LEASE_S": "15", "READ_CACHE_PEER_TIMEOUT_MS": "5000"}


def _requests(path: str) -> Iterator[bytes]:
    """Endless GETs of all items in turn."""
    return itertools.cycle(
        [f"GET {path}{item_of(number)} HTTP/1.1\r\nhost: 127.0.0.1\r\n\r\n".encode() for number in range(ITEMS)]
    )


@contextlib.contextmanager
def _node(stack: Stack, *, apart: bool) -> Iterator[tuple[int, psutil.Process]]:
    """A node, which keeps a ring of its own; where it answers HTTP, and its process."""
    http, grpc = free_ports(2)
    env = stack.service_env | _SETTINGS
    env |= {"CACHE_PORT": str(http), "CACHE_NODE_PORT": str(grpc), "CACHE_NODE_NAME": "node"}
    with served(CACHE_NODE, env, http, apart=apart) as process:
        yield http, process


@contextlib.contextmanager
def _servers(name: str, stack: Stack) -> Iterator[tuple[int, str, list[psutil.Process]]]:
    """The port and the path to ask, and the processes whose time counts."""
    if name == NODE:
        with _node(stack, apart=True) as (http, node):
            yield http, "/api?key=items/", [node]
        return
    env = stack.service_env | _SETTINGS | {"READ_CACHE": name.partition(", ")[2]}
    port = stack.ports.gateway
    with contextlib.ExitStack() as open_now:
        nodes = [open_now.enter_context(_node(stack, apart=False))[1]] if name == GATEWAY_CLUSTER else []
        gateway = open_now.enter_context(served(API_GATEWAY, env, port))
        yield port, "/api/v1/items/", [gateway, *nodes]


def measure(name: str, stack: Stack, *, seconds: float) -> CacheResult:
    """One run of a contender. Within :func:`bench.gateway.cores_apart`."""
    with _servers(name, stack) as (port, path, processes):

        def cpu_s() -> float:
            times = [process.cpu_times() for process in processes]
            return float(sum(each.user + each.system for each in times))

        async def read(for_s: float) -> tuple[Tally, float, float]:
            return await load(
                port,
                requests,
                connections=CONNECTIONS,
                warm_up_s=_WARM_UP_S,
                measure_s=for_s,
                cpu_s=cpu_s,
                sample_every=2,
            )

        requests = _requests(path)
        filled = ITEMS if name == GATEWAY_OFF else 0
        for _ in range(_FILLS_MAX):
            if filled >= ITEMS:
                break
            filled += uvloop.run(read(1.0))[0].answered
        tally, took_s, used_s = uvloop.run(read(seconds))
    if tally.failed:
        raise click.ClickException(f"{name}: of {tally.answered} answers {tally.failed} were no 200")
    if not tally.latencies_s:
        raise click.ClickException(f"{name}: {tally.answered} answers are too few to tell percentiles; more --seconds")
    found = percentiles_ms(tally.latencies_s)
    return CacheResult(tally.answered / took_s, tally.answered / used_s, found["p50"], found["p99"])
