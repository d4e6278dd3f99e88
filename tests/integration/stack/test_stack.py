"""The embedded stack against its real servers: data stays, nothing is left behind, what was killed comes back."""

from __future__ import annotations

import asyncio
import signal
import socket
import time
from pathlib import Path

import asyncpg
import psutil
import pytest
import redis.asyncio

from infrastructure.local.errors import AlreadyRunning, PortInUse, ProcessFailed, StackError
from infrastructure.local.reporting import Reporter
from infrastructure.local.servers.ports import Ports, free_ports
from infrastructure.local.services import API_GATEWAY, ARCHIVAL_WORKER
from infrastructure.local.stack import Stack
from infrastructure.local.state import RunRecord, living, run_path
from infrastructure.local.supervisor import Supervisor
from tests.stack import StackFactory, new_data_dir
from tests.waiting import eventually

pytestmark = pytest.mark.integration


async def write_marks(stack: Stack) -> None:
    client = redis.asyncio.Redis.from_url(stack.urls.redis_url, protocol=2)
    await client.set("mark", "kept")
    await client.aclose()
    connection = await asyncpg.connect(stack.urls.postgres_url)
    await connection.execute("CREATE TABLE mark (text text)")
    await connection.execute("INSERT INTO mark VALUES ('kept')")
    await connection.close()


async def read_marks(stack: Stack) -> tuple[object, object]:
    client = redis.asyncio.Redis.from_url(stack.urls.redis_url, protocol=2)
    in_redis = await client.get("mark")
    await client.aclose()
    connection = await asyncpg.connect(stack.urls.postgres_url)
    in_postgres = await connection.fetchval("SELECT text FROM mark")
    await connection.close()
    return in_redis, in_postgres


def family(stack: Stack) -> list[psutil.Process]:
    """The stack's processes with all that they have started."""
    heads = [psutil.Process(pid) for process in stack.processes.values() if (pid := process.pid)]
    return heads + [child for head in heads for child in head.children(recursive=True)]


def alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    return [one for one in processes if is_alive(one)]


def is_alive(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False  # it ended between the two questions


async def test_a_second_start_finds_the_data(start_stack: StackFactory) -> None:
    stack = await start_stack(services=())
    await write_marks(stack)
    await stack.stop()
    again = await start_stack(services=(), data_dir=stack.data_dir, ports=stack.ports)
    assert await read_marks(again) == (b"kept", "kept")


async def test_stop_leaves_no_process_and_no_record(start_stack: StackFactory) -> None:
    stack = await start_stack(services=())
    processes = family(stack)
    assert len(processes) > 3, "PostgreSQL has children of its own"
    assert RunRecord.read(run_path(stack.data_dir)) is not None
    await stack.stop()
    assert alive(processes) == []
    assert not run_path(stack.data_dir).exists()
    await stack.stop()  # again: nothing to do


async def test_what_was_acknowledged_survives_the_death_of_the_servers(start_stack: StackFactory) -> None:
    stack = await start_stack(services=())
    await write_marks(stack)
    for name in ("redis", "postgres", "nats"):
        stack.kill(name, signal.SIGKILL)
        assert await stack.wait_ended(name)
        assert stack.pid(name) is None
        await stack.start_process(name)
    assert await read_marks(stack) == (b"kept", "kept")


async def test_a_port_in_use_is_named_before_anything_starts(start_stack: StackFactory) -> None:
    stack = start_stack.make(services=())
    with socket.create_server(("127.0.0.1", stack.ports.nats)), pytest.raises(PortInUse) as caught:
        await stack.start()
    assert caught.value.port == stack.ports.nats
    assert "NATS_PORT" in str(caught.value)
    assert stack.processes == {}
    assert not (stack.data_dir / "postgres").exists()
    await stack.start()  # once the port is free, the same stack starts


async def test_a_data_directory_in_use_is_refused_and_left_alone(start_stack: StackFactory) -> None:
    stack = await start_stack(services=())
    second = start_stack.make(services=(), data_dir=stack.data_dir)
    with pytest.raises(AlreadyRunning):
        await second.start()
    assert len(alive(family(stack))) > 3
    assert RunRecord.read(run_path(stack.data_dir)) is not None


async def test_a_start_that_fails_says_why_and_leaves_nothing(start_stack: StackFactory) -> None:
    data_dir = new_data_dir()
    (data_dir / "redis").mkdir()
    # Where the append-only file should be written there is a folder: Redis refuses to start.
    (data_dir / "redis" / "appendonly.aof").mkdir()
    (data_dir / "redis" / "appendonlydir").touch()
    stack = start_stack.make(services=(), data_dir=data_dir)
    with pytest.raises(ProcessFailed, match=r"redis ended with exit code 1"):
        await stack.start()
    assert family(stack) == []
    assert not run_path(data_dir).exists()


async def test_a_start_that_is_interrupted_leaves_nothing(start_stack: StackFactory) -> None:
    stack = start_stack.make(services=())
    starting = asyncio.create_task(stack.start())
    await eventually(lambda: bool(family(stack)), seconds=30)
    starting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await starting
    assert family(stack) == []
    await stack.start()


async def test_a_service_that_does_not_come_up_shows_its_log(start_stack: StackFactory) -> None:
    stack = await start_stack(services=())
    (port,) = free_ports(1)
    with pytest.raises(ProcessFailed, match="No module named"):
        await stack.add_service("broken", "no_such_service", port)


async def test_a_given_server_is_used_and_not_started(start_stack: StackFactory, tmp_path: Path) -> None:
    first = await start_stack(services=())
    second = Stack(
        tmp_path,
        ports=first.ports,
        services=(),
        redis_url=first.urls.redis_url,
        nats_url=first.urls.nats_url,
        postgres_url=first.urls.postgres_url,
    )
    async with second:
        assert second.urls == first.urls
        assert second.processes == {}
    assert len(alive(family(first))) > 3


async def test_what_runs_is_said_before_the_record_calls_it_ready(start_stack: StackFactory, tmp_path: Path) -> None:
    """`up --detach` shows what was said until then, and no more."""
    first = await start_stack(services=())
    urls = first.urls
    stack = Stack(
        tmp_path,
        ports=first.ports,
        services=(),
        redis_url=urls.redis_url,
        nats_url=urls.nats_url,
        postgres_url=urls.postgres_url,
    )

    def phase() -> str | None:
        record = RunRecord.read(run_path(tmp_path))
        return None if record is None else record.phase

    phases: list[str | None] = []
    await stack.start(on_ready=lambda: phases.append(phase()))
    phases.append(phase())
    await stack.stop()
    assert phases == ["starting", "ready"]


async def test_a_given_server_that_is_not_there_stops_the_start(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    stack = Stack(tmp_path, ports=Ports.free(), services=(), nats_url=f"nats://127.0.0.1:{port}")
    with pytest.raises(StackError, match="NATS_URL"):
        await stack.start()


async def test_a_data_directory_that_cannot_be_written_stops_the_start(start_stack: StackFactory) -> None:
    data_dir = new_data_dir()
    (data_dir / "config").touch()
    stack = start_stack.make(services=(), data_dir=data_dir)
    with pytest.raises(StackError, match="Could not start with the data directory"):
        await stack.start()
    assert family(stack) == []


class Steps(Reporter):
    def __init__(self) -> None:
        self.seen: list[str] = []

    def step_started(self, label: str) -> None:
        self.seen.append(f"{label} begins")

    def step_done(self, label: str, seconds: float, note: str) -> None:
        self.seen.append(f"{label} is done")


async def test_no_server_is_stopped_before_every_service_is(start_stack: StackFactory) -> None:
    """A service finishes what it has in hand, and needs its servers for that."""
    stack = await start_stack(services=(API_GATEWAY, ARCHIVAL_WORKER))
    stack.reporter = steps = Steps()
    await stack.stop()
    services = {f"stop {name} is done" for name in (API_GATEWAY, ARCHIVAL_WORKER)}
    servers = {f"stop {name} begins" for name in stack.servers}
    assert services | servers <= set(steps.seen)
    assert max(map(steps.seen.index, services)) < min(map(steps.seen.index, servers)), steps.seen


class Notices(Reporter):
    def __init__(self) -> None:
        self.texts: list[str] = []

    def notice(self, text: str) -> None:
        self.texts.append(text)


async def test_what_is_killed_comes_back_with_its_data(start_stack: StackFactory) -> None:
    stack = await start_stack(services=())
    stack.reporter = notices = Notices()
    await write_marks(stack)
    async with Supervisor(stack):
        before = {name: stack.pid(name) for name in stack.servers}
        for name in stack.servers:
            stack.kill(name, signal.SIGKILL)
        killed_at = time.time()
        await eventually(
            lambda: all(
                one.restarts == 1 and one.ready_at is not None and one.ready_at > killed_at
                for one in stack.processes.values()
            ),
            seconds=30,
        )
        assert {name: stack.pid(name) for name in stack.servers}.items().isdisjoint(before.items())
        assert await read_marks(stack) == (b"kept", "kept")
    assert any(text.startswith("redis was ended by SIGKILL") for text in notices.texts)
    record = RunRecord.read(run_path(stack.data_dir))
    assert record is not None
    assert {entry.restarts for entry in record.processes.values()} == {1}
    assert len(living(record)) == 3


async def test_a_disk_without_room_keeps_nothing_from_being_brought_back_or_stopped(start_stack: StackFactory) -> None:
    stack = await start_stack(services=())
    stack.reporter = notices = Notices()
    processes = family(stack)
    # What a full disk does to these files: they cannot be written.
    scratch = run_path(stack.data_dir).with_suffix(".tmp")
    scratch.mkdir()
    config = stack.data_dir / "config" / "redis.conf"
    config.unlink()
    config.mkdir()
    async with Supervisor(stack):
        stack.kill("redis")
        await eventually(lambda: any("redis.conf" in text for text in notices.texts), seconds=30)
        config.rmdir()
        await eventually(
            lambda: stack.pid("redis") is not None and stack.processes["redis"].ready_at is not None, seconds=30
        )
    processes += family(stack)
    await stack.stop()
    assert alive(processes) == []
    assert any("could not write" in text for text in notices.texts)


async def test_what_is_stopped_on_purpose_stays_down(start_stack: StackFactory) -> None:
    stack = await start_stack(services=())
    async with Supervisor(stack):
        await stack.stop_process("nats")
        stack.kill("redis", signal.SIGKILL)
        # By the time that Redis is back, NATS would be too.
        await eventually(lambda: stack.processes["redis"].restarts == 1 and stack.pid("redis") is not None, seconds=30)
        assert stack.pid("nats") is None
        await stack.start_process("nats")
        assert stack.pid("nats") is not None
