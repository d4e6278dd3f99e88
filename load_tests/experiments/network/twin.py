"""The twin: the embedded stack with a delay on its hops and a CPU quota on its parts."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from infrastructure.local.servers.ports import Ports
from infrastructure.local.stack import Stack
from load_tests.experiments.common.guard import Refused
from load_tests.experiments.common.platform import Platform, StackProgress
from load_tests.network.quota import quotas
from load_tests.targets import CROWD_ENV, Targets

HOPS: Final = ("client", "redis", "nats", "postgres")
_LISTEN_S: Final = 15.0
_WIRES: Final = "delay line"


@dataclass(frozen=True, slots=True)
class Conditions:
    """``delays_s``: by hop, added to a round trip, half of it each way. ``cpu``: cores of each component, 0: no
    quota."""

    delays_s: Mapping[str, float]
    cpu: float


@contextlib.asynccontextmanager
async def twin(conditions: Conditions, scratch: Path) -> AsyncIterator[tuple[Platform, str]]:
    """Start it; yields the place and how the quota is kept.

    Raises:
        StackError: a part of it did not start.
        Refused: the hops did not listen.
    """
    ports = Ports.free()
    async with contextlib.AsyncExitStack() as stack:
        servers = await stack.enter_async_context(
            Stack(scratch / "servers", ports=ports, services=(), migrate=True, reporter=StackProgress())
        )
        near: dict[str, int] = {"client": ports.gateway}
        near |= {name: getattr(ports, name) for name in ("redis", "nats", "postgres")}
        wires: list[int] = []
        for name in HOPS:
            delay_s = conditions.delays_s.get(name, 0.0)
            if delay_s:
                port, pid = await stack.enter_async_context(_wire(delay_s / 2, near[name]))
                near[name] = port
                wires.append(pid)
        urls = servers.urls
        services = await stack.enter_async_context(
            Stack(
                scratch / "services",
                ports=ports,
                redis_url=_at(urls.redis_url, ports.redis, near["redis"]),
                nats_url=_at(urls.nats_url, ports.nats, near["nats"]),
                postgres_url=_at(urls.postgres_url, ports.postgres, near["postgres"]),
                migrate=False,
                env=CROWD_ENV,
                reporter=StackProgress(),
            )
        )

        def components() -> dict[str, list[int]]:
            every = {**servers.processes, **services.processes}
            return {name: [process.pid] for name, process in every.items() if process.pid is not None}

        how = await stack.enter_async_context(quotas(components(), conditions.cpu))
        gateway_url = _at(services.urls.gateway_url, ports.gateway, near["client"])
        yield (
            Platform(
                backend="embedded",
                label="twin: the embedded stack with delays and quotas",
                gateway_url=gateway_url,
                feed_url=services.urls.broadcast_url,
                # The proof reads the stores directly: it is no part of what is measured.
                targets=Targets(gateway_url, urls.redis_url, urls.nats_url, urls.postgres_url),
                roots=lambda: {**components(), **({_WIRES: wires} if wires else {})},
                stack=services,
                data_dir=services.data_dir,
            ),
            how,
        )


def _at(url: str, port: int, other: int) -> str:
    return url.replace(f":{port}", f":{other}")


@contextlib.asynccontextmanager
async def _wire(one_way_s: float, to_port: int) -> AsyncIterator[tuple[int, int]]:
    """A hop in a process of its own; yields its port and its process id."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "load_tests.network.delay_line",
        "--delay-ms",
        str(one_way_s * 1_000),
        "--to",
        str(to_port),
        stdout=asyncio.subprocess.PIPE,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        async with asyncio.timeout(_LISTEN_S):
            line = await process.stdout.readline()
        if not line:
            raise Refused("the delay line ended before it listened; its error is above")
        (port,) = json.loads(line)
        yield port, process.pid
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
