"""Proxies on the bus of a cluster: what its nodes say to each other passes through them, and may be held.

A node tells the others where its bus is reached, one address for all; so there is one proxy before each node. By the
address from which a node connects, another one of loopback for each, its proxy knows who it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncIterator, Iterable, Mapping
from typing import Any

import psutil

from infrastructure.local.servers.ports import HOST
from infrastructure.local.servers.redis_and_nats import redis_url
from shared.clients.redis import open_redis
from tests.tcp import Way, relay, serving
from tests.waiting import eventually

ADDRESSES_OF_LOOPBACK = sys.platform == "linux"
"""Whether a process may connect from 127.0.0.11 without anybody's preparation."""


class Bus:
    """The bus of the nodes whose clients connect to these ports."""

    def __init__(self, bus_ports: Mapping[int, int]) -> None:
        """``bus_ports``: by the port for clients, where each node itself listens for the others."""
        self._bus_ports = dict(bus_ports)
        self._sources = {f"127.0.0.{number}": port for number, port in enumerate(bus_ports, 11)}
        self._proxies: dict[int, int] = {}
        self._apart: set[int] = set()
        self._joined = asyncio.Event()
        self.held = 0
        """Messages that were kept from somebody."""

    async def lead_through(self, open_servers: contextlib.AsyncExitStack) -> None:
        """Have all nodes use it, and wait until none has a connection past it."""
        for port, bus_port in self._bus_ports.items():
            self._proxies[port] = await open_servers.enter_async_context(serving(self._before(port, bus_port)))
        for source, port in self._sources.items():
            client: Any = open_redis(redis_url(port), timeout_s=20, connections_max=1)
            try:
                await client.config_set("bind-source-addr", source)
                await client.config_set("cluster-announce-ip", HOST)
                await client.config_set("cluster-announce-bus-port", str(self._proxies[port]))
            finally:
                await client.aclose()
        await eventually(self._all_pass, "all links of the bus lead through the proxies", seconds=60)

    def cut_off(self, ports: Iterable[int]) -> None:
        """Nothing passes between these nodes and the others, in either direction, and nobody is told."""
        self._apart = set(ports)
        self._joined.clear()

    def join(self) -> None:
        """Join the nodes, as after a partition: what was kept never arrives, and the nodes connect again."""
        self._apart = set()
        self._joined.set()

    def _before(self, port: int, bus_port: int) -> Any:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            source = self._sources.get(writer.get_extra_info("peername")[0])

            async def pass_on(_: Way, data: bytes) -> bytes:
                if (source in self._apart) != (port in self._apart):
                    self.held += 1
                    await self._joined.wait()
                    raise ConnectionResetError("what was kept is forgotten")
                return data

            await relay(reader, writer, bus_port, pass_on)

        return serve

    def _all_pass(self) -> bool:
        """Whether each node is reached through its proxy alone, by nodes that it can tell apart."""
        ours = psutil.Process().pid
        links = [
            (connection.laddr[0], connection.raddr[1], connection.pid)
            for connection in psutil.net_connections("tcp")
            if connection.status == psutil.CONN_ESTABLISHED and connection.laddr and connection.raddr
        ]
        past = [pid for _, port, pid in links if port in self._bus_ports.values() and pid != ours]
        proxied = [(source, port) for source, port, _ in links if port in self._proxies.values()]
        unknown = [source for source, _ in proxied if source not in self._sources]
        through = {(self._sources[source], port) for source, port in proxied if source in self._sources}
        count = len(self._proxies)
        return not past and not unknown and len(through) == count * (count - 1)


@contextlib.asynccontextmanager
async def bus_of(bus_ports: Mapping[int, int]) -> AsyncIterator[Bus]:
    """The bus of these nodes, led through proxies."""
    async with contextlib.AsyncExitStack() as open_servers:
        bus = Bus(bus_ports)
        await bus.lead_through(open_servers)
        yield bus
        bus.join()
