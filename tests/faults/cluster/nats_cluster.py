"""Three NATS servers as infrastructure/terraform sets them up, with a proxy on every line between and before them.

What is added to the configuration are two addresses that servers tell others of. `client_advertise` names the proxy,
since clients learn of every server. `advertise` leads nowhere: a server that hears of another one's route connects to
it, and would go past the proxies whenever it is faster than the routes of its configuration.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
from pathlib import Path
from typing import Self

import psutil
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.api import PeerInfo

from infrastructure.local.processes import ProcessSpec
from infrastructure.local.servers import binaries, probes
from infrastructure.local.servers.ports import HOST, free_ports
from infrastructure.local.servers.redis_and_nats import plain_environment
from infrastructure.local.stack import Stack
from shared.names import STREAM
from tests.faults.rig.harness import FaultRun
from tests.faults.rig.proxy import FaultyProxy
from tests.integration.aws.nats_servers import MODULE, SECRETS, rendered
from tests.waiting import eventually

_USER = "bidding"
NAMES = ("nats-0", "nats-1", "nats-2")


class NatsCluster:
    """``url`` names all three, through the proxies before them."""

    def __init__(self) -> None:
        self._open = contextlib.AsyncExitStack()
        self._clients: dict[str, FaultyProxy] = {}
        self._routes: dict[tuple[str, str], FaultyProxy] = {}
        self._ports: dict[str, tuple[int, int, int]] = {}
        self._folders: dict[str, Path] = {}
        self._nowhere: FaultyProxy

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._open.aclose()

    @property
    def url(self) -> str:
        """For clients."""
        login = f"{_USER}:{SECRETS['NATS_PASSWORD']}"
        return ",".join(f"nats://{login}@{HOST}:{proxy.port}" for proxy in self._clients.values())

    async def start(self, stack: Stack) -> None:
        """Start the cluster in place of the stack's single server, which ends."""
        await stack.stop_process("nats")
        self._nowhere = await self._open.enter_async_context(FaultyProxy(0))
        self._nowhere.refuse()
        for name in NAMES:
            client, route, monitor = free_ports(3)
            self._ports[name] = client, route, monitor
            self._clients[name] = await self._open.enter_async_context(FaultyProxy(client))
        for name in NAMES:
            for other in NAMES:
                if other != name:
                    proxy = FaultyProxy(self._ports[other][1])
                    self._routes[name, other] = await self._open.enter_async_context(proxy)
        await asyncio.gather(*(stack.add_server(self._spec(stack, name)) for name in NAMES))

    def _spec(self, stack: Stack, name: str) -> ProcessSpec:
        folder = self._folders[name] = stack.data_dir / name
        folder.mkdir()
        client, route, monitor = self._ports[name]
        routes = [f"{HOST}:{proxy.port}" for (here, _), proxy in self._routes.items() if here == name]
        values = {
            "name": name,
            "users": (MODULE / "users.conf").read_text(),
            "data_path": str(folder),
            "memory_mb": "64",
            "store_gib": "4",
        }
        values |= {"sync_s": "10"}
        text = rendered((MODULE / "nats.conf.tftpl").read_text(), values, routes)
        listens = (("0.0.0.0:4222", client), ("0.0.0.0:6222", route), ("127.0.0.1:8222", monitor))
        for used, free in listens:
            assert used in text
            text = text.replace(used, f"{HOST}:{free}")
        assert "\ncluster {\n" in text
        text = text.replace("\ncluster {\n", f'\ncluster {{\n  advertise: "{HOST}:{self._nowhere.port}"\n')
        text = text.replace(":6222", "").replace("@PASSWORD@", SECRETS["NATS_PASSWORD"])
        text = text.replace("@ROUTE_PASSWORD@", SECRETS["NATS_ROUTE_PASSWORD"])
        config = stack.data_dir / "config" / f"{name}.conf"
        config.write_text(f'{text}client_advertise: "{HOST}:{self._clients[name].port}"\n')
        return ProcessSpec(
            name=name,
            argv=(str(binaries.find_nats(os.environ)), "--config", str(config)),
            env=plain_environment(os.environ),
            log=stack.log_path(name),
            ready=probes.http_ready(HOST, monitor, "/healthz"),
            address=f"{HOST}:{client}",
            ready_timeout_s=90.0,
        )

    def cut_off(self, run: FaultRun, name: str) -> None:
        """Cut a server off from clients and the two others, in both directions: connections stay, nothing passes."""
        around = self._around(run, name)
        assert not around, f"{name} is connected past the proxies: {around}"
        for proxy in self._lines_of(name):
            proxy.stop("requests", "answers")
        run.fault(f"{name} is cut off")

    def join(self, run: FaultRun, name: str) -> None:
        """Let the server join again, as after a partition: connections from before it are gone."""
        for proxy in self._lines_of(name):
            proxy.heal(late=False)
        run.note(f"{name} is reachable again")

    def _lines_of(self, name: str) -> list[FaultyProxy]:
        return [self._clients[name], *(proxy for pair, proxy in self._routes.items() if name in pair)]

    def _around(self, run: FaultRun, name: str) -> list[str]:
        """Routes from this server to another one, or back, that do not lead through a proxy."""
        routes = {ports[1]: server for server, ports in self._ports.items()}
        return [
            f"{server} to {routes[connection.raddr.port]}"
            for server in NAMES
            for connection in psutil.Process(run.stack.pid(server)).net_connections("tcp")
            if connection.raddr and connection.raddr.port in routes and name in (server, routes[connection.raddr.port])
        ]

    def wipe(self, run: FaultRun, name: str) -> None:
        """Delete the files of a server that does not run."""
        shutil.rmtree(self._folders[name])
        self._folders[name].mkdir()
        run.fault(f"the disk of {name} is empty")

    async def leader(self, run: FaultRun) -> str:
        """The server that leads the stream."""
        leader, _ = await self._copies(run)
        return leader

    async def in_step(self, run: FaultRun, *, within_s: float = 60.0) -> None:
        """Wait until all three have the whole stream."""

        async def complete() -> bool:
            leader, others = await self._copies(run)
            return bool(leader) and len(others) == 2 and all(peer.current and not peer.offline for peer in others)

        await eventually(complete, seconds=within_s)
        run.note("all three servers have the stream")

    async def _copies(self, run: FaultRun) -> tuple[str, list[PeerInfo]]:
        try:
            async with run.jetstream() as jetstream, asyncio.timeout(5):
                return await copies_of(jetstream, STREAM)
        except (NatsError, OSError, TimeoutError) as error:
            run.note(f"the stream cannot be asked: {type(error).__name__}: {error}")
            return "", []


async def copies_of(jetstream: JetStreamContext, stream: str) -> tuple[str, list[PeerInfo]]:
    """The server that leads a stream, and what is known of its other copies.

    Raises:
        nats.errors.Error, TimeoutError: it cannot be told now.
    """
    info = await jetstream.stream_info(stream)
    assert info.config.num_replicas == 3
    assert info.cluster is not None
    return info.cluster.leader or "", list(info.cluster.replicas or ())
