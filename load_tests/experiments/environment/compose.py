"""The compose stack, as a project of its own beside whatever runs: other ports, other volumes, gone afterwards."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Final

import httpx2 as httpx

from infrastructure.local.servers.ports import HOST, free_ports
from load_tests.experiments.common.containers import Project
from load_tests.experiments.common.guard import Refused
from load_tests.experiments.environment.probes import request_ms, series_at
from load_tests.experiments.environment.properties import CannotDo

_FROM, _TO = 3, 5
_READY_S: Final = 300.0
_LOOK_EVERY_S: Final = 0.5
PORTS: Final = (
    "GATEWAY_PORT",
    "BROADCAST_PORT",
    "REDIS_PORT",
    "NATS_PORT",
    "NATS_MONITOR_PORT",
    "POSTGRES_PORT",
    "AWS_PORT",
)
"""The variables of the ports that the project publishes, each with a port of its own."""
ANY_PORT: Final = ("ARCHIVER_PORT",)
"""The port variable of the service of which several run: 0, so that the engine finds a free port for each."""
SERVICES: Final = ("api_gateway", "broadcast_service", "archival_worker")
_SCALED: Final = "archival_worker"
"""The service of which several run. Only readers of metrics need its port, so each container may have any."""

_LOOK_UP: Final = (
    "import socket, time; t = time.perf_counter(); socket.getaddrinfo('redis', 6379); "
    "print((time.perf_counter() - t) * 1000)"
)


class ComposeBackend:
    """A new project with empty volumes each time; images are built beforehand, and not counted."""

    label = "compose stack, a new project for each repetition"
    notes: tuple[str, ...] = (
        "Deployment time is from images that are built, with empty volumes.",
        "Instances are archival workers: the others publish a port of the machine that clients know.",
        "Discovery is a look-up in the name server of the container engine.",
    )

    @contextlib.asynccontextmanager
    async def deployed(self) -> AsyncIterator[ComposeDeployment]:
        """Start it, and remove it with its volumes."""
        ports = dict(zip(PORTS, map(str, free_ports(len(PORTS))), strict=True)) | dict.fromkeys(ANY_PORT, "0")
        project = Project("bidding-experiment", ports)
        await project.run("build", *SERVICES, patience_s=1_800)
        deployment = ComposeDeployment(project, ports)
        try:
            await deployment.deploy()
            yield deployment
        finally:
            await project.run("down", "--volumes", "--remove-orphans")


class ComposeDeployment:
    """One project that runs."""

    def __init__(self, project: Project, ports: dict[str, str]) -> None:
        self._project = project
        self._gateway_url = f"http://{HOST}:{ports['GATEWAY_PORT']}"
        self._feed_url = f"http://{HOST}:{ports['BROADCAST_PORT']}"
        self._took_s = 0.0

    async def deploy(self) -> None:
        """Start it, until gateway and broadcaster are ready."""
        began_s = time.monotonic()
        await self._project.run("up", "-d", *SERVICES)
        for url in (self._gateway_url, self._feed_url):
            await _until_ready(url)
        self._took_s = time.monotonic() - began_s

    async def deployment_s(self) -> float:
        """Until gateway and broadcaster are ready."""
        return self._took_s

    async def scaling_s(self) -> float:
        """Until five containers are running."""
        await self._scale(_FROM)
        began_s = time.monotonic()
        await self._scale(_TO)
        took_s = time.monotonic() - began_s
        await self._scale(1)
        return took_s

    async def _scale(self, count: int) -> None:
        await self._project.run("up", "-d", "--no-recreate", "--scale", f"{_SCALED}={count}", _SCALED)
        deadline_s = time.monotonic() + _READY_S
        while len(await self._project.containers(_SCALED)) != count:
            if time.monotonic() > deadline_s:
                raise Refused(f"{_SCALED} did not come to {count} containers")
            await asyncio.sleep(_LOOK_EVERY_S)

    async def tasks(self) -> float:
        """Containers that run."""
        return float(len(await self._project.containers()))

    async def discovery_ms(self) -> float:
        """The name `redis`, from inside a container."""
        return float(await self._project.run("exec", "-T", "api_gateway", "python", "-c", _LOOK_UP))

    async def cost_per_hour(self) -> float:
        """Nobody bills it."""
        raise CannotDo("nothing is billed: the machine is there anyway")

    async def network_ms(self) -> float:
        """Through the port that is published."""
        return await request_ms(self._gateway_url)

    async def log_streams(self) -> float:
        """Containers that have logged something."""
        names = await self._project.containers()
        return float(sum([bool((await self._project.log_of(name)).strip()) for name in names]))

    async def metrics(self) -> float:
        """Series of gateway and broadcaster; the ports of the archival workers are not known."""
        return await series_at([self._gateway_url, self._feed_url])


async def _until_ready(url: str) -> None:
    deadline_s = time.monotonic() + _READY_S
    async with httpx.AsyncClient(timeout=5.0, trust_env=False) as client:
        while True:
            with contextlib.suppress(httpx.HTTPError):
                if (await client.get(f"{url}/ready")).status_code == 200:
                    return
            if time.monotonic() > deadline_s:
                raise Refused(f"{url} was not ready after {_READY_S:.0f} s")
            await asyncio.sleep(_LOOK_EVERY_S)
