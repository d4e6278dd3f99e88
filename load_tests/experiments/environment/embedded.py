"""The embedded stack: processes of this machine."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

from infrastructure.local.servers.ports import HOST, Ports, free_ports
from infrastructure.local.services import API_GATEWAY
from infrastructure.local.stack import Stack
from infrastructure.local.state import RunRecord, run_path
from load_tests.experiments.environment.probes import request_ms, series_at
from load_tests.experiments.environment.properties import CannotDo

_FROM, _TO = 3, 5
_CONNECT_S: Final = 5.0


class EmbeddedBackend:
    """A new stack with empty data each time."""

    label = "embedded stack, a new one for each repetition"
    notes: tuple[str, ...] = (
        "Instances are gateways, each on a port of its own; nothing balances between them.",
        "Discovery is reading run.json and connecting to what it names: there is no registry.",
    )

    @contextlib.asynccontextmanager
    async def deployed(self) -> AsyncIterator[EmbeddedDeployment]:
        """Start it, and remove it with its data."""
        folder = Path(tempfile.mkdtemp(prefix="bidding-environment-"))
        stack = Stack(folder, ports=Ports.free())
        try:
            began_s = time.monotonic()
            await stack.start()
            yield EmbeddedDeployment(stack, time.monotonic() - began_s)
        finally:
            await stack.stop()
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)


class EmbeddedDeployment:
    """One stack that runs."""

    def __init__(self, stack: Stack, took_s: float) -> None:
        self._stack = stack
        self._took_s = took_s

    async def deployment_s(self) -> float:
        """Servers, database, schema and services, until each is ready."""
        return self._took_s

    async def scaling_s(self) -> float:
        """Two more gateways, once there are three."""
        await self._add_gateways(range(2, _FROM + 1))
        began_s = time.monotonic()
        await self._add_gateways(range(_FROM + 1, _TO + 1))
        return time.monotonic() - began_s

    async def _add_gateways(self, numbers: range) -> None:
        async def add(number: int, port: int) -> None:
            await self._stack.add_service(f"{API_GATEWAY}-{number}", API_GATEWAY, port, {"GATEWAY_PORT": str(port)})

        ports = free_ports(len(numbers))
        async with asyncio.TaskGroup() as group:
            for number, port in zip(numbers, ports, strict=True):
                group.create_task(add(number, port))

    async def tasks(self) -> float:
        """Processes of the stack."""
        return float(sum(process.is_running for process in self._stack.processes.values()))

    async def discovery_ms(self) -> float:
        """Read where the gateway is, and connect."""
        began_s = time.perf_counter()
        record = RunRecord.read(run_path(self._stack.data_dir))
        if record is None:
            raise CannotDo("run.json is not there")
        async with asyncio.timeout(_CONNECT_S):
            _, writer = await asyncio.open_connection(HOST, record.ports["gateway"])
        took_ms = (time.perf_counter() - began_s) * 1_000
        writer.close()
        return took_ms

    async def cost_per_hour(self) -> float:
        """Nobody bills it."""
        raise CannotDo("nothing is billed: the machine is there anyway")

    async def network_ms(self) -> float:
        """Loopback."""
        return await request_ms(self._stack.urls.gateway_url)

    async def log_streams(self) -> float:
        """Log files."""
        return float(_filled(self._stack.data_dir / "logs"))

    async def metrics(self) -> float:
        """Of gateway, broadcaster and archiver."""
        urls = self._stack.urls
        return await series_at([urls.gateway_url, urls.broadcast_url, urls.archiver_url])


def _filled(folder: Path) -> int:
    return sum(path.stat().st_size > 0 for path in folder.glob("*.log"))
