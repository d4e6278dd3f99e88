"""The lines between services and servers, each with a proxy of its own, so that any of them can be cut alone."""

from __future__ import annotations

import contextlib
import random
from collections import defaultdict
from collections.abc import Mapping
from typing import Literal, NamedTuple, Self

import psutil

from infrastructure.local.servers.ports import HOST
from infrastructure.local.servers.postgres import DATABASE, ROLE
from infrastructure.local.services import API_GATEWAY, ARCHIVAL_WORKER, BROADCAST_SERVICE
from infrastructure.local.stack import Stack
from tests.faults.rig.harness import FaultRun
from tests.faults.rig.proxy import FaultyProxy

Server = Literal["redis", "nats", "postgres"]
Partition = Literal["refused", "black hole", "no requests", "no answers"]


class Line(NamedTuple):
    """The line from a service to a server."""

    service: str
    server: Server

    def __str__(self) -> str:
        return f"{self.service} to {self.server}"


LINES = (
    Line(API_GATEWAY, "redis"),
    Line(API_GATEWAY, "nats"),
    Line(API_GATEWAY, "postgres"),
    Line(ARCHIVAL_WORKER, "redis"),
    Line(ARCHIVAL_WORKER, "nats"),
    Line(ARCHIVAL_WORKER, "postgres"),
    Line(BROADCAST_SERVICE, "redis"),
    Line(BROADCAST_SERVICE, "nats"),
)
"""Every line but the broadcaster's to PostgreSQL, which it asks only about closed items that have left Redis."""

PARTITIONS: tuple[Partition, ...] = ("refused", "black hole", "no requests", "no answers")
"""``refused``: connections are reset. The others leave them open: nothing passes, or nothing in one direction."""

_URLS: Mapping[Server, str] = {
    "redis": "redis://{host}:{port}/0",
    "nats": "nats://{host}:{port}",
    "postgres": f"postgresql://{ROLE}@{{host}}:{{port}}/{DATABASE}",
}


class Links:
    """Proxies on all lines; give :meth:`between` to :func:`fault_run`."""

    def __init__(self) -> None:
        self.proxies: dict[Line, FaultyProxy] = {}
        self._open = contextlib.AsyncExitStack()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._open.aclose()

    async def keep(self, proxy: FaultyProxy) -> FaultyProxy:
        """Open one more proxy, for as long as the others."""
        return await self._open.enter_async_context(proxy)

    async def between(self, stack: Stack) -> Mapping[str, Mapping[str, str]]:
        """Put the proxies there; what each service has to be told."""
        env: dict[str, dict[str, str]] = defaultdict(dict)
        for line in LINES:
            proxy = await self.keep(FaultyProxy(getattr(stack.ports, line.server)))
            self.proxies[line] = proxy
            env[line.service][f"{line.server.upper()}_URL"] = _URLS[line.server].format(host=HOST, port=proxy.port)
        return env

    def part(self, line: Line, how: Partition) -> None:
        """Part the two."""
        proxy = self.proxies[line]
        if how == "refused":
            proxy.refuse()
        elif how == "black hole":
            proxy.stop("requests", "answers")
        else:
            proxy.stop("requests" if how == "no requests" else "answers")

    def around(self, run: FaultRun) -> list[str]:
        """Connections of the services that go past the proxies; there must be none, or nothing was parted."""
        servers = {getattr(run.stack.ports, line.server): line.server for line in LINES}
        pids = {service: run.stack.pid(service) for service in sorted({line.service for line in LINES})}
        assert None not in pids.values(), f"not all services run: {pids}"
        return [
            f"{service} to {servers[connection.raddr.port]}"
            for service, pid in pids.items()
            for connection in psutil.Process(pid).net_connections("tcp")
            if connection.raddr and connection.raddr.port in servers
        ]


class Parted:
    """A fault of the nemesis: one line is parted, in a way that chance says."""

    def __init__(self, links: Links, line: Line) -> None:
        self.name = f"{line} is parted"
        self._links = links
        self._line = line

    async def inject(self, chance: random.Random) -> None:
        """Part the two."""
        self._links.part(self._line, chance.choice(PARTITIONS))

    async def heal(self) -> None:
        """Join the two again."""
        self._links.proxies[self._line].heal()
