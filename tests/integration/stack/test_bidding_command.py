"""`bidding up` and its companions as a user runs them: in a process of their own, ended by signals."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import re
import shutil
import signal
import socket
import tempfile
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import psutil
import pytest
import pytest_asyncio

from infrastructure.local.servers.ports import Ports, setting_of
from infrastructure.local.services import ALL_SERVICES
from infrastructure.local.state import RunRecord, end_leftovers, living, run_path
from tests.programs import BIDDING, started
from tests.stack import copy_database_to, ports_in_a_row
from tests.waiting import eventually

pytestmark = pytest.mark.integration


class Bidding:
    """Runs `bidding …` on ports and a data directory of its own."""

    def __init__(self) -> None:
        # Not one of the names that `end_stacks_of_killed_runs` looks for: here a supervisor is killed on purpose.
        # A blank and a letter beyond ASCII are in many a home folder.
        self.data_dir = Path(tempfile.mkdtemp(prefix="bidding-command-für mich-"))
        # Where the command is called there may be another checkout: its services must not be taken for ours.
        self.cwd = Path(tempfile.mkdtemp(prefix="bidding-cwd-"))
        for name in ALL_SERVICES:
            (self.cwd / name).mkdir()
            (self.cwd / name / "__init__.py").write_text("raise RuntimeError('this is another checkout')\n")
        self.ports = Ports.free()
        self._started = AsyncExitStack()

    async def start(self, *arguments: str, stdout: int = PIPE) -> Process:
        settings = {setting_of(name): str(value) for name, value in dataclasses.asdict(self.ports).items()}
        environment = os.environ | settings | {"BIDDING_DATA_DIR": str(self.data_dir)}
        command = started(*BIDDING, *arguments, env=environment, cwd=self.cwd, stdout=stdout, own_session=True)
        return await self._started.enter_async_context(command)

    async def run(self, *arguments: str) -> tuple[int, str]:
        """Exit code and output."""
        process = await self.start(*arguments)
        output, _ = await process.communicate()
        assert process.returncode is not None
        return process.returncode, output.decode()

    async def up(self) -> Process:
        """`bidding up` in the foreground with a database that is there, once it has said that it is ready."""
        await copy_database_to(self.data_dir)
        process = await self.start("up", "--servers-only")
        assert process.stdout is not None
        text = b""
        while b"Data " not in text:
            line = await process.stdout.readline()
            assert line, f"it ended: {text.decode()}"
            text += line
        return process

    def record(self) -> RunRecord:
        record = RunRecord.read(run_path(self.data_dir))
        assert record is not None
        return record

    async def close(self) -> None:
        await self._started.aclose()
        record = RunRecord.read(run_path(self.data_dir))
        if record is not None:
            if supervisor := record.supervisor.find():
                supervisor.kill()
            await end_leftovers(record)
        for folder in (self.data_dir, self.cwd):
            shutil.rmtree(folder, ignore_errors=True)


@pytest_asyncio.fixture
async def bidding() -> AsyncIterator[Bidding]:
    made = Bidding()
    yield made
    await made.close()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
async def test_a_signal_stops_everything(bidding: Bidding, number: signal.Signals) -> None:
    process = await bidding.up()
    processes = list(living(bidding.record()).values())
    assert len(processes) == 3
    process.send_signal(number)
    output, _ = await process.communicate()
    assert process.returncode == 0
    assert re.search(r"✓ stop redis", output.decode())
    assert [one for one in processes if is_alive(one)] == []
    assert not run_path(bidding.data_dir).exists()


async def test_a_closed_terminal_leaves_nothing_behind(bidding: Bidding) -> None:
    ours, theirs = os.openpty()
    await copy_database_to(bidding.data_dir)
    process = await bidding.start("up", "--servers-only", stdout=theirs)
    os.close(theirs)
    text = b""
    while b"Ctrl-C stops" not in text:
        text += await asyncio.to_thread(os.read, ours, 4_096)
    os.close(ours)
    processes = list(living(bidding.record()).values())
    assert len(processes) == 3
    # The window is gone: from here on every line that is written to it is an error.
    process.send_signal(signal.SIGHUP)
    assert await process.wait() == 0
    assert [one for one in processes if is_alive(one)] == []
    assert not run_path(bidding.data_dir).exists()


async def test_in_the_background_and_down(bidding: Bidding) -> None:
    code, output = await bidding.run("up", "--servers-only", "--detach")
    assert code == 0, output
    assert "runs in the background" in output
    code, output = await bidding.run("status", "--json")
    assert code == 0
    states = {row["name"]: (row["state"], row["port"]) for row in json.loads(output)["processes"]}
    assert states == {
        "redis": ("ready", bidding.ports.redis),
        "nats": ("ready", bidding.ports.nats),
        "postgres": ("ready", bidding.ports.postgres),
    }
    code, output = await bidding.run("up", "--servers-only")
    assert code == 1
    assert "Already running" in output
    code, output = await bidding.run("down")
    assert code == 0
    assert "Stopped in" in output
    code, output = await bidding.run("status")
    assert (code, output[:7]) == (1, "stopped")


async def test_a_supervisor_that_was_killed_leaves_nothing_that_the_next_start_cannot_end(
    bidding: Bidding,
) -> None:
    process = await bidding.up()
    orphans = list(living(bidding.record()).values())
    process.kill()
    await process.communicate()
    assert [one for one in orphans if not one.is_running()] == []
    code, output = await bidding.run("status")
    assert (code, output[:11]) == (1, "left behind")

    code, output = await bidding.run("up", "--servers-only", "--detach")
    assert code == 0, output
    assert "ended what an earlier run had left behind: nats, postgres, redis" in output
    await eventually(lambda: not any(is_alive(one) for one in orphans), seconds=10)
    assert len(living(bidding.record())) == 3


async def test_down_ends_what_a_killed_supervisor_left(bidding: Bidding) -> None:
    process = await bidding.up()
    orphans = list(living(bidding.record()).values())
    process.kill()
    await process.communicate()
    code, output = await bidding.run("down")
    assert code == 0
    assert "Ended what was left: nats, postgres, redis" in output
    assert not any(is_alive(one) for one in orphans)


async def test_a_port_in_use_is_an_error_that_names_it(bidding: Bidding) -> None:
    with socket.create_server(("127.0.0.1", bidding.ports.redis)):
        for detach in ((), ("--detach",)):
            code, output = await bidding.run("up", "--servers-only", *detach)
            assert code == 1
            assert f"Port {bidding.ports.redis}" in output
            assert "REDIS_PORT=" in output
            assert "Traceback" not in output
    assert living_children(bidding.data_dir) == []


@pytest.mark.parametrize("detach", [(), ("--detach",)])
async def test_a_data_directory_that_cannot_be_made_is_an_error_that_names_it(
    bidding: Bidding, detach: tuple[str, ...]
) -> None:
    (bidding.data_dir / "file").touch()
    code, output = await bidding.run("up", *detach, "--data-dir", str(bidding.data_dir / "file" / "below"))
    assert code == 1
    assert "Cannot write to the data directory" in output
    assert "Traceback" not in output


def is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def living_children(data_dir: Path) -> list[str]:
    record = RunRecord.read(run_path(data_dir))
    return list(living(record)) if record is not None else []


async def test_up_with_cache_nodes(bidding: Bidding) -> None:
    """They are processes like all others: in the status, with their ports, and gone with the rest."""
    bidding.ports = dataclasses.replace(bidding.ports, cache_node=ports_in_a_row(2))
    await copy_database_to(bidding.data_dir)
    code, output = await bidding.run("up", "--cache-nodes", "2", "--detach")
    assert code == 0, output
    assert f":{bidding.ports.cache}/api?key=items/" in output
    code, output = await bidding.run("status", "--json")
    assert code == 0, output
    ports = {row["name"]: row["port"] for row in json.loads(output)["processes"]}
    assert {name: port for name, port in ports.items() if "cache" in name} == {
        "cache_node-1": bidding.ports.cache_node,
        "cache_node-2": bidding.ports.cache_node + 1,
        "cache_front_end": bidding.ports.cache,
    }
    code, output = await bidding.run("cache", "ring")
    assert code == 0, output
    assert f"127.0.0.1:{bidding.ports.cache_node + 1}" in output
    processes = list(living(bidding.record()).values())
    assert len(processes) == 9
    code, output = await bidding.run("down")
    assert code == 0, output
    assert [one for one in processes if is_alive(one)] == []
