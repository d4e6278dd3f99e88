"""The NATS servers of infrastructure/terraform, started for real: their template, their start command, their check."""

from __future__ import annotations

import os
import re
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from infrastructure.docker import healthcheck
from infrastructure.local.processes import ProcessSpec
from infrastructure.local.servers import binaries
from infrastructure.local.servers.ports import free_ports
from tests.programs import accepts, running_server
from tests.waiting import eventually

MODULE = Path(__file__).parents[3] / "infrastructure" / "terraform" / "modules" / "nats"
MAIN = (MODULE / "main.tf").read_text()

# Digits first, and two that are alike: what nats.conf and sed could mistake for something else.
SECRETS = {"NATS_PASSWORD": "0123abcXYZ", "NATS_ROUTE_PASSWORD": "9e5PASSWORD"}


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


def start_command(data: Path) -> str:
    """As main.tf gives it to /bin/sh -c."""
    found = re.search(r'^  start = "(.*)"$', MAIN, re.MULTILINE)
    assert found is not None
    return found[1].replace('\\"', '"').replace("${local.data_path}", str(data))


def health_path() -> str:
    """What the task definition asks, which is also what the image asks."""
    found = re.findall(r"http://127\.0\.0\.1:8222(/\S*)'", MAIN + (MODULE / "Dockerfile").read_text())
    assert len(found) == 2
    assert len(set(found)) == 1
    return str(found[0])


@asynccontextmanager
async def server(folder: Path, *, of: int) -> AsyncIterator[int]:
    """nats-0 of so many servers, the others of which never come; its monitoring port."""
    client, cluster, monitor, *others = free_ports(3 + of)
    routes = [f"127.0.0.1:{port}" for port in [cluster, *others][:of]] if of > 1 else []
    values = {"name": "nats-0", "user": "bidding", "data_path": str(folder), "memory_mb": "64", "store_gib": "1"}
    text = rendered((MODULE / "nats.conf.tftpl").read_text(), values, routes)
    for used, free in (("0.0.0.0:4222", client), ("0.0.0.0:6222", cluster), ("127.0.0.1:8222", monitor)):
        text = text.replace(used, f"127.0.0.1:{free}")
    text = text.replace(":6222", "")
    program = binaries.find_nats(os.environ)
    environment = {"PATH": f"{program.parent}:{os.environ['PATH']}", "NATS_CONFIGURATION": text, **SECRETS}
    spec = ProcessSpec(
        name="nats-0",
        argv=("/bin/sh", "-c", start_command(folder)),
        env=environment,
        log=folder / "nats-0.log",
        ready=accepts(monitor),
        address=f"127.0.0.1:{monitor}",
    )
    async with running_server(spec):
        yield monitor


async def answers(port: int, path: str, status: int) -> None:
    """Wait for the answer; before it has read its store, a server gives others."""

    async def ask() -> bool:
        try:
            return healthcheck.ask(port, path)[0] == status
        except (OSError, ValueError):
            return False

    await eventually(ask)


@pytest.mark.parametrize("servers", [1, 3])
async def test_a_server_that_waits_for_the_others_is_well(tmp_path: Path, servers: int) -> None:
    """ECS starts the servers one after the other and replaces what is not well: the first one must not wait to be."""
    async with server(tmp_path, of=servers) as monitor:
        await answers(monitor, health_path(), 200)
        if servers > 1:
            # And it does wait: there is no majority that JetStream could work with.
            await answers(monitor, "/healthz", 503)
        written = (tmp_path / "nats.conf").read_text()
        assert f'password: "{SECRETS["NATS_PASSWORD"]}"' in written
        assert "@PASSWORD@" not in written
        assert "@ROUTE_PASSWORD@" not in written
        assert (tmp_path / "nats.conf").stat().st_mode & 0o077 == 0
