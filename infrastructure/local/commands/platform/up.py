"""`bidding up`: start everything, say what to try, and keep it running until Ctrl-C."""

from __future__ import annotations

import asyncio
import codecs
import contextlib
import os
import resource
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any, get_args

import click

from infrastructure.local.cache_nodes import FRONT_END, NODES_MAX
from infrastructure.local.commands.failing import Failure
from infrastructure.local.commands.helping import examples
from infrastructure.local.commands.options import data_dir_option, external_urls, port_options, ports_from
from infrastructure.local.errors import AlreadyRunning, StackError
from infrastructure.local.processes import keep_short
from infrastructure.local.servers.redis_and_nats import AppendFsync
from infrastructure.local.servers.valkey_cluster import NODES_MAX as NODES_OF_VALKEY_MAX
from infrastructure.local.services import ALL_SERVICES, wants_own_issuer
from infrastructure.local.stack import Stack
from infrastructure.local.state import RunRecord, make_data_dir, run_path
from infrastructure.local.supervisor import Supervisor
from infrastructure.local.terminal import TerminalReporter, bidding_command, say, servers_welcome, welcome

_OPEN_FILES_WANTED = 65_536
_DETACH_POLL_S = 0.1


@click.command(
    epilog=examples("bidding up", "bidding up --detach", "bidding up --data-dir /tmp/second --gateway-port 9080")
)
@data_dir_option
@port_options
@click.option(
    "--redis-appendfsync",
    envvar="REDIS_APPENDFSYNC",
    type=click.Choice(get_args(AppendFsync)),
    default="always",
    show_default=True,
    show_envvar=True,
    help="When Redis writes to disk; only `always` keeps every acknowledged bid through a power cut.",
)
@click.option(
    "--servers-only",
    is_flag=True,
    help="Start only Redis, NATS and PostgreSQL, and migrate: for services that you start yourself.",
)
@click.option(
    "--gateways",
    type=click.IntRange(1, 16),
    default=1,
    show_default=True,
    help="Gateways that share the port of the API; each can use one core.",
)
@click.option(
    "--broadcasters",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    help="Broadcasters that share the port of the live feed.",
)
@click.option(
    "--cache-nodes",
    type=click.IntRange(0, NODES_MAX),
    default=0,
    show_default=True,
    help="Nodes of the read cache, with a front end; the gateway reads closed items through them.",
)
@click.option(
    "--valkey-nodes",
    type=click.IntRange(1, NODES_OF_VALKEY_MAX),
    default=1,
    show_default=True,
    help="Nodes of a cluster of Redis, on the ports from --redis-port on; use 3 or more. 1: a single Redis.",
)
@click.option(
    "--detach", "-d", is_flag=True, help="Return once everything is ready; it keeps running in the background."
)
def up(
    data_dir: Path,
    redis_appendfsync: AppendFsync,
    servers_only: bool,
    gateways: int,
    broadcasters: int,
    cache_nodes: int,
    valkey_nodes: int,
    detach: bool,
    **ports: Any,
) -> None:
    """Start the platform and keep it running; Ctrl-C stops it.

    If REDIS_URL, NATS_URL or POSTGRES_URL is set, the services use that server instead of a private one.
    """
    try:
        if detach:
            sys.exit(_run_detached(data_dir))
        _raise_open_files_limit()
        reporter = TerminalReporter()
        stack = Stack(
            data_dir,
            ports=ports_from(ports),
            services=() if servers_only else ALL_SERVICES,
            migrate=True,
            redis_appendfsync=redis_appendfsync,
            reporter=reporter,
            gateways=gateways,
            broadcasters=broadcasters,
            cache_nodes=0 if servers_only else cache_nodes,
            valkey_nodes=valkey_nodes,
            **external_urls(),
        )
        asyncio.run(_run(stack, reporter))
    except StackError as error:
        raise Failure(str(error)) from error


def _welcome(stack: Stack, reporter: TerminalReporter) -> None:
    """Say what runs where."""
    seconds = time.monotonic() - reporter.started
    has_issuer = wants_own_issuer(os.environ)
    if stack.services:
        say(welcome(stack.urls, stack.data_dir, seconds, with_token=has_issuer))
    else:
        say(servers_welcome(stack.urls, stack.data_dir, seconds))
    if has_issuer:
        say(f"  Tokens      {bidding_command('token USER --role bidder', stack.data_dir)}")
        say(f"  Sign in     {bidding_command('token USER --link', stack.data_dir)}\n")
    if front_end := stack.processes.get(FRONT_END):
        say(f"  Read cache  {front_end.spec.address}/api?key=items/…")
        say(f"              {bidding_command('cache ring', stack.data_dir)}\n")


async def _run(stack: Stack, reporter: TerminalReporter) -> None:
    stop_asked = asyncio.Event()

    def on_signal() -> None:
        # A second Ctrl-C stops everything at once.
        if stop_asked.is_set():
            stack.hurry()
        stop_asked.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, on_signal)

    starting = asyncio.create_task(stack.start(on_ready=partial(_welcome, stack, reporter)))
    asked = asyncio.create_task(stop_asked.wait())
    await asyncio.wait({starting, asked}, return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():
        reporter.notice("stopping before everything was up")
        starting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await starting
        return
    try:
        await starting
        async with Supervisor(stack):
            if sys.stdout.isatty():
                say("Ctrl-C stops everything.\n")
            await asked
        say("\nStopping (Ctrl-C again to hurry)" if sys.stdout.isatty() else "Stopping")
    finally:
        asked.cancel()
        stopping = time.monotonic()
        await stack.stop()
    say(f"Stopped in {time.monotonic() - stopping:.1f} s. The data stays in {stack.data_dir}.")


def _raise_open_files_limit() -> None:
    """Let servers and services open as many files and sockets as the system allows, at most 65,536."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES_WANTED if hard == resource.RLIM_INFINITY else min(hard, _OPEN_FILES_WANTED)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _run_detached(data_dir: Path) -> int:
    """Run the same command in a session of its own, and show its output until it is ready. Returns the exit code."""
    log = data_dir.absolute() / "logs" / "bidding.log"
    record = RunRecord.read(run_path(data_dir))
    if record is not None and record.supervisor.find() is not None:
        raise AlreadyRunning(data_dir, record.supervisor.pid)
    arguments = [word for word in sys.argv[1:] if word not in ("--detach", "-d")]
    try:
        make_data_dir(data_dir)
        log.parent.mkdir(exist_ok=True)
        keep_short(log)
        # Append: somebody may want to know why an earlier run ended.
        with log.open("ab") as output:
            before = output.tell()
            child = subprocess.Popen(
                [sys.executable, "-P", "-m", "infrastructure.local.cli", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=os.environ | {"PYTHONUNBUFFERED": "1"},
                start_new_session=True,
            )
    except OSError as error:
        raise StackError(f"Cannot write to the data directory {data_dir}: {error.strerror}.") from error
    try:
        return _follow_until_ready(child, data_dir, log, before)
    except KeyboardInterrupt:
        child.send_signal(signal.SIGINT)
        child.wait()
        return 130


def _follow_until_ready(child: subprocess.Popen[bytes], data_dir: Path, log: Path, start: int) -> int:
    """Show what the child writes to its log from ``start`` on. Returns the exit code."""
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    with log.open("rb") as output:
        output.seek(start)
        while True:
            ended = child.poll()
            record = RunRecord.read(run_path(data_dir))
            is_ready = record is not None and record.supervisor.pid == child.pid and record.phase == "ready"
            say(decoder.decode(output.read()), end="")
            if ended is not None:
                return ended or 1
            if is_ready:
                say(f"\nIt runs in the background. `{bidding_command('down', data_dir)}` stops it.")
                return 0
            time.sleep(_DETACH_POLL_S)
