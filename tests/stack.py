"""Stacks for tests: private servers on free ports, with their data in a temporary folder, gone afterwards.

The fixtures in `conftest.py` are made of these. A test run that is killed cannot clean up; the next one does,
since every stack writes down its processes.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import fcntl
import functools
import os
import random
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import psutil

from infrastructure.local.errors import StackError
from infrastructure.local.processes import ProcessSpec
from infrastructure.local.servers.ports import Ports, free_ports
from infrastructure.local.servers.postgres import postgres_spec
from infrastructure.local.servers.redis_and_nats import AppendFsync
from infrastructure.local.services import ALL_SERVICES
from infrastructure.local.stack import Stack
from infrastructure.local.state import RunRecord, end_leftovers, run_path
from tests.preforked import launch_service
from tests.refusals import refusals

_PREFIX = "bidding-test-"
# With the number of the process that runs the tests, or that started those which do.
_TEMPLATE_PREFIX = "bidding-template-"
_IN_MEMORY = Path("/dev/shm")
_MEMORY_BYTES_MIN = 4 * 1024**3
# One statement per line.
_NOT_NEEDED = """\
UPDATE pg_database SET datistemplate = false WHERE datname = 'template0'
DROP DATABASE template0
DROP DATABASE postgres
"""


@functools.cache
def scratch() -> Path:
    """Where stacks have their folders: in memory where there is enough of it, else the system's temporary folder.

    Servers force every write onto the disk, for which most tests would wait; a process that is killed loses nothing
    by the difference. If TMPDIR is set, the folders are there.
    """
    if "TMPDIR" not in os.environ and os.access(_IN_MEMORY, os.W_OK):
        free = min(shutil.disk_usage(_IN_MEMORY).free, psutil.virtual_memory().available)
        if free >= _MEMORY_BYTES_MIN:
            return _IN_MEMORY
    return Path(tempfile.gettempdir())


def new_data_dir() -> Path:
    """An empty folder directly under :func:`scratch`.

    Not pytest's tmp_path: that lies below a folder only its owner may enter, where PostgreSQL, which does not
    run as root, could not reach its files when the tests do.
    """
    return Path(tempfile.mkdtemp(prefix=_PREFIX, dir=scratch()))


def ports_in_a_row(count: int) -> int:
    """The first of so many ports, each after the other, that are free and were not given out lately."""
    for _ in range(100):
        first = random.randrange(20_000, 31_900)
        with contextlib.suppress(StackError):
            free_ports(count, range(first, first + count))
            return first
    raise StackError(f"Found no {count} free ports in a row.")


def end_stacks_of_killed_runs() -> None:
    """End what test runs that were killed have left running, and remove their folders."""
    for folder in {Path(tempfile.gettempdir()), _IN_MEMORY}:
        for data_dir in folder.glob(f"{_PREFIX}*"):
            record = RunRecord.read(run_path(data_dir))
            if record is not None and record.supervisor.find() is None:
                asyncio.run(end_leftovers(record))
                shutil.rmtree(data_dir, ignore_errors=True)
        for template in folder.glob(f"{_TEMPLATE_PREFIX}*"):
            if not psutil.pid_exists(int(template.name.removeprefix(_TEMPLATE_PREFIX).partition("-")[0])):
                shutil.rmtree(template, ignore_errors=True)


def remove_template() -> None:
    """Remove the database that stacks were given; by the process that runs the tests, or started those which do."""
    for template in scratch().glob(f"{_TEMPLATE_PREFIX}{os.getpid()}-*"):
        shutil.rmtree(template, ignore_errors=True)


class _Template:
    """A database that is made and migrated once per run of the tests: a copy of it costs a tenth of that."""

    def __init__(self) -> None:
        self._folder: Path | None = None

    async def copy_to(self, data_dir: Path) -> None:
        """Give a stack that has not started yet this database."""
        if self._folder is None:
            self._folder = await self._found_or_made()
        # With its owner: PostgreSQL has a user of its own.
        copy = ("cp", "-a", str(self._folder / "postgres"), str(data_dir))
        await asyncio.to_thread(subprocess.run, copy, check=True, capture_output=True, timeout=60)

    async def _found_or_made(self) -> Path:
        # Where several processes run tests, the first that needs it makes it for all.
        run = os.environ.get("PYTEST_XDIST_TESTRUNUID")
        folder = scratch() / f"{_TEMPLATE_PREFIX}{os.getppid() if run else os.getpid()}-{run or uuid.uuid4().hex}"
        folder.mkdir(exist_ok=True)
        made = folder / "made"
        with (folder / "template.lock").open("w") as lock:
            await asyncio.to_thread(fcntl.flock, lock, fcntl.LOCK_EX)
            if not made.exists():
                await self._make(folder)
                made.touch()
        return folder

    async def _make(self, folder: Path) -> None:
        stack = Stack(folder, ports=Ports.free(), services=())
        try:
            await stack.start()
            await stack.migrate()
        finally:
            await stack.stop()
        await asyncio.to_thread(_shrink, postgres_spec(folder, stack.ports, os.environ))


def _shrink(spec: ProcessSpec) -> None:
    """Make a database that is stopped small, as it is copied for every stack: 46 MB before, 18 MB after."""
    postgres, folder = Path(spec.argv[0]), str(spec.cwd)

    def run(*command: str, statements: str = "") -> None:
        # Single-user mode tells a statement that failed in its output alone.
        done = subprocess.run(
            command,
            input=statements,
            capture_output=True,
            text=True,
            env=dict(spec.env),
            cwd=folder,
            timeout=60,
            check=True,
            user=spec.user,
            group=spec.group,
            extra_groups=None if spec.user is None else [],
        )
        assert "ERROR:" not in done.stderr, done.stderr

    run(str(postgres), "--single", "-D", folder, "template1", statements=_NOT_NEEDED)
    run(str(postgres.with_name("pg_resetwal")), "--wal-segsize=1", "-D", folder)


_TEMPLATE = _Template()


async def copy_database_to(data_dir: Path) -> None:
    """Put a migrated database into the data directory of a stack that was never started."""
    await _TEMPLATE.copy_to(data_dir)


async def _end(stack: Stack) -> None:
    """End a stack whose data nobody will read: by force, except PostgreSQL, whose shared memory would be left behind.

    A test of an orderly end stops the stack itself.
    """
    forced = [process for name, process in stack.processes.items() if name != "postgres"]
    await asyncio.gather(*(process.stop(lambda: True) for process in forced))
    await stack.stop()


class StackFactory:
    """Starts stacks for one test, and ends and removes them all after it, whether it passed or failed."""

    def __init__(self) -> None:
        self._stacks: list[Stack] = []

    async def __call__(
        self,
        *,
        services: Sequence[str] = ALL_SERVICES,
        env: Mapping[str, str] | None = None,
        ports: Ports | None = None,
        data_dir: Path | None = None,
        redis_appendfsync: AppendFsync = "always",
        cache_nodes: int = 0,
        valkey_nodes: int = 1,
    ) -> Stack:
        """A running stack, by default with all services, on free ports and in a folder of its own.

        Its database is a copy of one that is migrated, unless it has a folder of its own.
        """
        ready_made = data_dir is None
        stack = self.make(
            services=services,
            env=env,
            ports=ports,
            data_dir=data_dir,
            redis_appendfsync=redis_appendfsync,
            migrate=False if ready_made else None,
            cache_nodes=cache_nodes,
            valkey_nodes=valkey_nodes,
        )
        if ready_made:
            await copy_database_to(stack.data_dir)
        await stack.start()
        return stack

    def make(
        self,
        *,
        services: Sequence[str] = ALL_SERVICES,
        env: Mapping[str, str] | None = None,
        ports: Ports | None = None,
        data_dir: Path | None = None,
        redis_appendfsync: AppendFsync = "always",
        migrate: bool | None = None,
        cache_nodes: int = 0,
        valkey_nodes: int = 1,
    ) -> Stack:
        """The same, not started yet."""
        if cache_nodes and ports is None:
            ports = dataclasses.replace(Ports.free(), cache_node=ports_in_a_row(cache_nodes))
        if valkey_nodes > 1 and ports is None:
            ports = dataclasses.replace(Ports.free(), redis=ports_in_a_row(2 * valkey_nodes))
        stack = Stack(
            data_dir or new_data_dir(),
            ports=ports or Ports.free(),
            services=services,
            env=env,
            migrate=migrate,
            redis_appendfsync=redis_appendfsync,
            cache_nodes=cache_nodes,
            valkey_nodes=valkey_nodes,
            launcher=launch_service,
        )
        self._stacks.append(stack)
        return stack

    async def close(self) -> None:
        """End and remove all of them. AssertionError where a server refused one of their services a permission."""
        for stack in reversed(self._stacks):
            await _end(stack)
        refused = [line for stack in self._stacks for line in refusals(stack.data_dir)]
        for stack in self._stacks:
            shutil.rmtree(stack.data_dir, ignore_errors=True)
        assert not refused, "\n".join(refused)


@contextlib.contextmanager
def running_stack(
    *,
    services: Sequence[str],
    env: Mapping[str, str] | None = None,
    postgres_url: str | None = None,
    cache_nodes: int = 0,
    valkey_nodes: int = 1,
    may_be_refused: bool = False,
) -> Iterator[Stack]:
    """A stack for several tests, ended and removed after the block.

    Unless it ``may_be_refused``, AssertionError where a server refused one of its services a permission.
    Its database is a copy of one that is migrated, or the one at ``postgres_url``, which must be migrated.

    Not async: a Stack belongs to no event loop, and this one may outlive those of the tests.
    """
    ports = Ports.free()
    if cache_nodes:
        ports = dataclasses.replace(ports, cache_node=ports_in_a_row(cache_nodes))
    if valkey_nodes > 1:
        ports = dataclasses.replace(ports, redis=ports_in_a_row(2 * valkey_nodes))
    stack = Stack(
        new_data_dir(),
        ports=ports,
        services=services,
        env=env,
        migrate=False,
        postgres_url=postgres_url,
        cache_nodes=cache_nodes,
        valkey_nodes=valkey_nodes,
        launcher=launch_service,
    )
    try:
        if postgres_url is None:
            asyncio.run(copy_database_to(stack.data_dir))
        asyncio.run(stack.start())
        yield stack
    finally:
        asyncio.run(_end(stack))
        refused = refusals(stack.data_dir)
        shutil.rmtree(stack.data_dir, ignore_errors=True)
    assert may_be_refused or not refused, "\n".join(refused)
