"""Stacks for tests: private servers on free ports, with their data in a temporary folder, gone afterwards.

The fixtures in `conftest.py` are made of these. A test run that is killed cannot clean up; the next one does,
since every stack writes down its processes.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import dataclasses
import os
import random
import shutil
import subprocess
import tempfile
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
# With the number of the process that made it.
_TEMPLATE_PREFIX = "bidding-template-"
# One statement per line.
_NOT_NEEDED = """\
UPDATE pg_database SET datistemplate = false WHERE datname = 'template0'
DROP DATABASE template0
DROP DATABASE postgres
"""


def new_data_dir() -> Path:
    """An empty folder directly under the system's temporary one.

    Not pytest's tmp_path: that lies below a folder only its owner may enter, where PostgreSQL, which does not
    run as root, could not reach its files when the tests do.
    """
    return Path(tempfile.mkdtemp(prefix=_PREFIX))


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
    for data_dir in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        record = RunRecord.read(run_path(data_dir))
        if record is not None and record.supervisor.find() is None:
            asyncio.run(end_leftovers(record))
            shutil.rmtree(data_dir, ignore_errors=True)
    for template in Path(tempfile.gettempdir()).glob(f"{_TEMPLATE_PREFIX}*"):
        if not psutil.pid_exists(int(template.name.removeprefix(_TEMPLATE_PREFIX).partition("-")[0])):
            shutil.rmtree(template, ignore_errors=True)


class _Template:
    """A database that is made and migrated once per process: a copy of it costs a tenth of that."""

    def __init__(self) -> None:
        self._folder: Path | None = None

    async def copy_to(self, data_dir: Path) -> None:
        """Give a stack that has not started yet this database."""
        if self._folder is None:
            self._folder = await self._made()
        # With its owner: PostgreSQL has a user of its own.
        copy = ("cp", "-a", str(self._folder / "postgres"), str(data_dir))
        await asyncio.to_thread(subprocess.run, copy, check=True, capture_output=True, timeout=60)

    async def _made(self) -> Path:
        folder = Path(tempfile.mkdtemp(prefix=f"{_TEMPLATE_PREFIX}{os.getpid()}-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        stack = Stack(folder, ports=Ports.free(), services=())
        try:
            await stack.start()
            await stack.migrate()
        finally:
            await stack.stop()
        await asyncio.to_thread(_shrink, postgres_spec(folder, stack.ports, os.environ))
        return folder


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
            await stack.stop()
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
        asyncio.run(stack.stop())
        refused = refusals(stack.data_dir)
        shutil.rmtree(stack.data_dir, ignore_errors=True)
    assert may_be_refused or not refused, "\n".join(refused)
