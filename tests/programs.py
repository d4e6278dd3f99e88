"""Programs of tests: commands, to their end or beside the test, and servers that a stack does not have."""

from __future__ import annotations

import asyncio
import os
import sys
from asyncio.subprocess import PIPE, STDOUT, Process
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from subprocess import CompletedProcess

from infrastructure.local.processes import ManagedProcess, ProcessSpec
from infrastructure.local.servers.binaries import find_redis
from infrastructure.local.servers.ports import HOST, free_ports
from infrastructure.local.servers.probes import Probe, Readiness, redis_ready
from infrastructure.local.servers.redis_and_nats import plain_environment
from infrastructure.local.stack import Stack
from tests.preforked import run_forked, run_forked_apart

BIDDING = (sys.executable, "-m", "infrastructure.local.cli")


@asynccontextmanager
async def started(
    *command: str,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
    stdout: int = PIPE,
    stderr: int = STDOUT,
    own_session: bool = False,
) -> AsyncIterator[Process]:
    """A command that runs beside the block; it is killed if it has not ended by itself when the block does."""
    process = await asyncio.create_subprocess_exec(
        *command, env=env, cwd=cwd, stdout=stdout, stderr=stderr, start_new_session=own_session
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


async def finished(*command: str, env: Mapping[str, str] | None = None, within_s: float = 240.0) -> tuple[int, str]:
    """Run a command; its exit code, and what it said on both outputs.

    Raises:
        TimeoutError: it took longer than ``within_s``, and was killed.
    """
    async with started(*command, env=env) as process:
        async with asyncio.timeout(within_s):
            output, _ = await process.communicate()
        assert process.returncode is not None
        return process.returncode, output.decode(errors="replace")


async def bidding(*arguments: str, env: Mapping[str, str] | None = None) -> tuple[int, str]:
    """Run a `bidding` command by a fork; its exit code, and what it said. ``env`` is added to the environment."""
    return await run_forked(BIDDING[-1], *arguments, env=os.environ | dict(env or {}))


async def bidding_apart(*arguments: str) -> CompletedProcess[str]:
    """The same, with what it said on each of both outputs."""
    return await run_forked_apart(BIDDING[-1], *arguments, env=os.environ)


@asynccontextmanager
async def running_server(spec: ProcessSpec) -> AsyncIterator[ManagedProcess]:
    """A server, from when it is ready; for one that belongs to a stack there is ``Stack.add_server``."""
    process = ManagedProcess(spec)
    try:
        process.spawn()
        await process.wait_ready()
        yield process
    finally:
        await process.stop()


def accepts(port: int) -> Probe:
    """Ready when something takes connections on this port."""

    async def probe() -> Readiness:
        try:
            _, writer = await asyncio.open_connection(HOST, port)
        except OSError as error:
            return Readiness(False, str(error))
        writer.close()
        return Readiness(True)

    return probe


async def add_replica(stack: Stack, primary_port: int, *options: str) -> tuple[str, int]:
    """One more Redis in the stack, which follows the one on ``primary_port``; its name and its port.

    It answers, and need not have anything yet.
    """
    (port,) = free_ports(1)
    name = f"redis-replica-{port}"
    folder = stack.data_dir / name
    folder.mkdir()
    words = ("--bind", HOST, "--port", str(port), "--dir", str(folder), "--save", "", *options)
    await stack.add_server(
        ProcessSpec(
            name=name,
            argv=(str(find_redis(os.environ)), *words, "--replicaof", HOST, str(primary_port)),
            env=plain_environment(os.environ),
            log=stack.log_path(name),
            ready=redis_ready(HOST, port),
            address=f"{HOST}:{port}",
        )
    )
    return name, port
