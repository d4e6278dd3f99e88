"""`bidding down`: stop a platform that runs in the background, or the leftovers of a killed run."""

from __future__ import annotations

import asyncio
import signal
import time
from pathlib import Path

import click
import psutil

from infrastructure.local.commands.failing import Failure
from infrastructure.local.commands.helping import examples
from infrastructure.local.commands.options import data_dir_option
from infrastructure.local.errors import StackError
from infrastructure.local.processes import log_tail, poll_until
from infrastructure.local.state import DataDirLock, ProcessRecord, RunRecord, end_leftovers, run_path


@click.command(epilog=examples("bidding down"))
@data_dir_option
@click.option("--timeout", default=60.0, show_default=True, help="Seconds to wait before processes are killed.")
def down(data_dir: Path, timeout: float) -> None:
    """Stop the platform. The data stays."""
    record = RunRecord.read(run_path(data_dir))
    if record is None:
        click.echo(f"Nothing runs with its data in {data_dir}.")
        return
    started = time.monotonic()
    try:
        _ask(record.supervisor, timeout, data_dir)
        ended = asyncio.run(_end_rest(data_dir))
    except StackError as error:
        raise Failure(str(error)) from error
    if ended:
        click.echo(f"Ended what was left: {', '.join(ended)}.")
    click.echo(f"Stopped in {time.monotonic() - started:.1f} s.")


def _ask(supervisor: ProcessRecord, timeout_s: float, data_dir: Path) -> None:
    """Ask the supervisor to stop everything, like Ctrl-C; after the time-out ask again, which makes it hurry."""
    for _ in range(2):
        process = supervisor.find()
        if process is None:
            return
        try:
            process.send_signal(signal.SIGTERM)
        except psutil.NoSuchProcess:
            return
        except psutil.AccessDenied as error:
            raise StackError(f"Process {supervisor.pid} belongs to another user, who can stop it.") from error
        # A process that has ended but still waits for its parent to notice counts as gone, so we look at its
        # state.
        if asyncio.run(poll_until(lambda: supervisor.find() is None, timeout_s)):
            return
        click.echo(f"Still stopping after {timeout_s:g} s; ending processes by force.")
    tail = log_tail(data_dir / "logs" / "bidding.log", 10)
    raise StackError(f"Process {supervisor.pid} does not stop. The end of its log:\n{tail}")


async def _end_rest(data_dir: Path) -> list[str]:
    """End what outlived its supervisor; usually nothing."""
    record = RunRecord.read(run_path(data_dir))
    if record is None:
        return []
    lock = DataDirLock(data_dir)
    lock.acquire()
    try:
        ended = await end_leftovers(record)
        run_path(data_dir).unlink(missing_ok=True)
        return ended
    finally:
        lock.release()
