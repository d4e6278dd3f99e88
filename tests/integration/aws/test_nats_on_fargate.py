"""The NATS servers of infrastructure/terraform, started for real: their template, their start command, their check."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import nats
import nats.errors
import pytest
from nats.js import JetStreamContext
from nats.js.api import StorageType, StreamConfig
from nats.js.errors import ServiceUnavailableError

from infrastructure.docker import healthcheck
from infrastructure.docker.permissions import password_setting
from infrastructure.local.processes import ManagedProcess, ProcessSpec
from infrastructure.local.servers import binaries
from infrastructure.local.servers.ports import HOST, free_ports
from shared.permissions.accounts import Account
from tests.programs import accepts, running_server
from tests.waiting import eventually

MODULE = Path(__file__).parents[3] / "infrastructure" / "terraform" / "modules" / "nats"
MAIN = (MODULE / "main.tf").read_text()

# Digits first, and two that are alike: what nats.conf and sed could mistake for something else.
SECRETS = {"NATS_PASSWORD": "0123abcXYZ", "NATS_ROUTE_PASSWORD": "9e5PASSWORD"}
ACCOUNTS = {password_setting(account): f"7{account.value}" for account in Account}

_MESSAGES: Final = 8_000
_BODY: Final = b"x" * 8_192


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

    async def is_well(self) -> bool:
        """What ECS takes its health from."""
        here = {"run_path": str(self.run), "monitor": f"http://{HOST}:{self.monitor}", "alone_s": "5"}
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


@pytest.mark.parametrize("of", [1, 3])
async def test_a_server_that_waits_for_the_others_is_well(tmp_path: Path, of: int) -> None:
    """ECS starts the servers one after the other and replaces what is not well: the first one must not wait to be."""
    first, *_ = servers(tmp_path, of=of)
    async with running_server(first.spec):
        await answers(first.monitor, "/healthz?js-enabled-only=true", 200)
        await eventually(first.is_well)
        if of > 1:
            # And it does wait: there is no majority that JetStream could work with.
            await answers(first.monitor, "/healthz", 503)
        written = (first.run / "nats.conf").read_text()
        assert f'password: "{SECRETS["NATS_PASSWORD"]}"' in written
        assert "PASSWORD@" not in written.replace(SECRETS["NATS_ROUTE_PASSWORD"], "")
        for account in Account:
            client = await nats.connect(f"nats://{account.value}:7{account.value}@{HOST}:{first.client}")
            await client.close()
        assert (first.run / "nats.conf").stat().st_mode & 0o077 == 0
        # The passwords are on the disk that goes with the task.
        assert not (first.data / "nats.conf").exists()


def test_the_image_asks_whether_jetstream_works() -> None:
    assert "/healthz?js-enabled-only=true" in (MODULE / "Dockerfile").read_text()
    assert local("run_path") in (MODULE / "Dockerfile").read_text()


async def test_a_roll_waits_until_a_server_has_what_its_streams_have_elsewhere(tmp_path: Path) -> None:
    """Three servers and a stream on all of them; one comes back without its disk. Then all are stopped at once."""
    three = servers(tmp_path, of=3)
    processes = {each.name: ManagedProcess(each.spec) for each in three}
    last = three[2]
    try:
        await asyncio.gather(*map(begun, processes.values()))
        await asyncio.gather(*(eventually(each.is_well, each.name, seconds=60) for each in three))
        async with stream_of(three[:2]) as stream:
            await stream.add_stream(StreamConfig(name="S", subjects=["s"], storage=StorageType.FILE, num_replicas=3))
            await processes[last.name].stop()
            shutil.rmtree(last.data)
            shutil.rmtree(last.run)
            for first in range(0, _MESSAGES, 500):
                await asyncio.gather(*(stream.publish("s", _BODY) for _ in range(first, first + 500)))
            again = Server(tmp_path, 2, [[each.client, each.cluster, each.monitor] for each in three])
            processes[last.name] = ManagedProcess(again.spec)
            await begun(processes[last.name])

            async def settled() -> bool:
                before = again.messages()
                well = await again.is_well()
                assert not well or again.messages() >= _MESSAGES, f"well with {before} messages of {_MESSAGES}"
                return well

            await eventually(settled, seconds=120)
            # From now on it is judged by itself, not by what it lacks: it alone is left, and stays well.
            assert (again.run / "caught-up").exists()
        # AWS retires all three tasks at once: what is on the tasks' own disks goes, what is on EFS stays.
        await asyncio.gather(*(process.stop() for process in processes.values()))
        for each in three:
            shutil.rmtree(each.run)
            each.run.mkdir()
        processes = {each.name: ManagedProcess(each.spec) for each in three}
        await asyncio.gather(*map(begun, processes.values()))
        await asyncio.gather(*(eventually(each.is_well, each.name, seconds=120) for each in three))
        async with stream_of(three) as stream:

            async def told() -> int | None:
                # Between two leaders of a stream nobody answers for it; a client asks again.
                with contextlib.suppress(nats.errors.TimeoutError, ServiceUnavailableError):
                    return (await stream.stream_info("S")).state.messages
                return None

            assert await eventually(told, "the stream has a leader", seconds=60) == _MESSAGES
    finally:
        await asyncio.gather(*(process.stop() for process in processes.values()))
