"""NATS servers as infrastructure/terraform starts them: their template, their start command, their health check."""

from __future__ import annotations

import asyncio
import json
import os
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import nats
from nats.js import JetStreamContext

from infrastructure.docker import healthcheck
from infrastructure.docker.permissions import password_setting
from infrastructure.local.processes import ManagedProcess, ProcessSpec
from infrastructure.local.servers import binaries
from infrastructure.local.servers.ports import HOST, free_ports
from shared.permissions.accounts import Account
from tests.programs import accepts
from tests.waiting import eventually

MODULE = Path(__file__).parents[3] / "infrastructure" / "terraform" / "modules" / "nats"
MAIN = (MODULE / "main.tf").read_text()

# Digits first, and two that are alike: what nats.conf and sed could mistake for something else.
SECRETS = {"NATS_PASSWORD": "0123abcXYZ", "NATS_ROUTE_PASSWORD": "9e5PASSWORD"}
ACCOUNTS = {password_setting(account): f"7{account.value}" for account in Account}


def rendered(template: str, values: dict[str, str], routes: Sequence[str]) -> str:
    """The part of Terraform's template language that the file uses: values, one condition, one loop."""

    def loop(match: re.Match[str]) -> str:
        return "".join(match[1].replace("${host}", host) for host in routes)

    text = re.sub(r"%\{ for host in routes ~\}\n(.*?)%\{ endfor ~\}\n", loop, template, flags=re.DOTALL)
    condition = re.compile(r"%\{ if length\(routes\) > 0 ~\}\n(.*?)%\{ endif ~\}\n", re.DOTALL)
    text = condition.sub(lambda match: match[1] if routes else "", text)
    text = re.sub(r"\$\{(\w+)\}", lambda match: values[match[1]], text)
    assert "%{" not in text
    return text


def local(name: str, **others: str) -> str:
    """A text among the locals of main.tf, with the locals in it that are given here or are texts themselves."""
    found = re.search(rf'^  {name} += "(.*)"$', MAIN, re.MULTILINE)
    assert found is not None, name

    def value(match: re.Match[str]) -> str:
        return others[match[1]] if match[1] in others else local(match[1], **others)

    return re.sub(r"\$\{local\.(\w+)\}", value, found[1].replace('\\"', '"'))


class Server:
    """One of so many servers: its folders, its ports, its process."""

    def __init__(self, folder: Path, number: int, ports: Sequence[Sequence[int]]) -> None:
        self.name = f"nats-{number}"
        self.data, self.run = folder / self.name / "data", folder / self.name / "run"
        self.client, self.cluster, self.monitor = ports[number]
        for path in (self.data, self.run):
            path.mkdir(parents=True, exist_ok=True)
        routes = [f"{HOST}:{cluster}" for _, cluster, _ in ports] if len(ports) > 1 else []
        values = {"name": self.name, "users": (MODULE / "users.conf").read_text(), "data_path": str(self.data)}
        values |= {"memory_mb": "64", "store_gib": "1", "sync_s": "10"}
        text = rendered((MODULE / "nats.conf.tftpl").read_text(), values, routes)
        here = (("0.0.0.0:4222", self.client), ("0.0.0.0:6222", self.cluster), ("127.0.0.1:8222", self.monitor))
        for used, free in here:
            text = text.replace(used, f"{HOST}:{free}")
        text = text.replace(":6222", "")
        program = binaries.find_nats(os.environ)
        self.spec = ProcessSpec(
            name=self.name,
            argv=("/bin/sh", "-c", local("start", run_path=str(self.run))),
            env={"PATH": f"{program.parent}:{os.environ['PATH']}", "NATS_CONFIGURATION": text, **SECRETS, **ACCOUNTS},
            log=folder / f"{self.name}.log",
            ready=accepts(self.monitor),
            address=f"{HOST}:{self.monitor}",
        )

    async def is_well(self, *, pause_s: int = 2) -> bool:
        """What ECS takes its health from, with so many seconds between two looks."""
        here = {"run_path": str(self.run), "monitor": f"http://{HOST}:{self.monitor}", "alone_s": "5"}
        here["pause_s"] = str(pause_s)
        here["is_current"] = (MODULE / "current.awk").read_text()
        command = local("health_command", **here)
        process = await asyncio.create_subprocess_shell(
            command, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL
        )
        return await process.wait() == 0

    def messages(self) -> int:
        """How many messages it has itself, whatever the others have."""
        try:
            _, body = healthcheck.ask(self.monitor, "/jsz")
            found: dict[str, Any] = json.loads(body)
        except (OSError, ValueError):
            return 0
        return int(found["messages"])


def servers(folder: Path, *, of: int) -> list[Server]:
    """So many servers that know of each other."""
    free = free_ports(3 * of)
    ports = [free[3 * number : 3 * number + 3] for number in range(of)]
    return [Server(folder, number, ports) for number in range(of)]


@asynccontextmanager
async def stream_of(found: Sequence[Server]) -> AsyncIterator[JetStreamContext]:
    """A client of the running servers, and JetStream."""
    urls = [f"nats://bidding:{SECRETS['NATS_PASSWORD']}@{HOST}:{each.client}" for each in found]
    client = await nats.connect(urls)
    try:
        yield client.jetstream(timeout=10)
    finally:
        await client.close()


async def begun(process: ManagedProcess) -> None:
    """Start it; it listens then."""
    process.spawn()
    await process.wait_ready()


async def answers(port: int, path: str, status: int) -> None:
    """Wait for the answer; before it has read its store, a server gives others."""

    async def ask() -> bool:
        try:
            return healthcheck.ask(port, path)[0] == status
        except (OSError, ValueError):
            return False

    await eventually(ask)
