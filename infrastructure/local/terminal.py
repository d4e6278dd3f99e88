"""Progress on a terminal: a line per finished step, and, where the output is one, a last line that moves."""

from __future__ import annotations

import errno
import os
import shlex
import shutil
import sys
import time
from pathlib import Path

import click
from typing_extensions import override

from infrastructure.local.reporting import Reporter
from infrastructure.local.services import Urls

_LABEL_WIDTH = 18


def say(text: str, *, newline: bool = True, colour: bool | None = None) -> None:
    """Print, but never fail by it: what runs must be stopped in order even when there is nobody left to tell.

    The window was closed (EIO), the reader of a pipe is gone (EPIPE), or the disk with the log is full (ENOSPC).
    """
    try:
        click.echo(text, nl=newline, color=colour)
    except OSError as error:
        if error.errno in (errno.EIO, errno.EPIPE):
            # What is in the buffer, and all that follows, goes nowhere.
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, sys.stdout.fileno())
            os.close(nowhere)


class TerminalReporter(Reporter):
    """Prints what happens. Colours and the moving line appear on a terminal only (NO_COLOR is honoured)."""

    def __init__(self) -> None:
        self._live = sys.stdout.isatty()
        self._colour = self._live and not os.environ.get("NO_COLOR")
        self._under_way: list[str] = []
        self.started = time.monotonic()

    @override
    def step_started(self, label: str) -> None:
        self._under_way.append(label)
        self._draw_waiting()

    @override
    def step_done(self, label: str, seconds: float, note: str) -> None:
        self._finish(label, seconds, note, "✓", "green")

    @override
    def step_failed(self, label: str, seconds: float) -> None:
        self._finish(label, seconds, "", "✗", "red")

    @override
    def notice(self, text: str) -> None:
        first, *rest = text.splitlines() or [""]
        at = time.strftime("%H:%M:%S")
        self._print("\n".join([f"  {self._style('!', 'yellow')} {at} {first}", *(f"    {line}" for line in rest)]))

    def _finish(self, label: str, seconds: float, note: str, mark: str, colour: str) -> None:
        if label in self._under_way:
            self._under_way.remove(label)
        self._print(f"  {self._style(mark, colour)} {label:<{_LABEL_WIDTH}} {seconds:5.1f} s  {note}".rstrip())

    def _print(self, line: str) -> None:
        self._erase_waiting()
        say(line, colour=self._colour)
        self._draw_waiting()

    def _erase_waiting(self) -> None:
        if self._live:
            say("\r\x1b[K", newline=False, colour=True)

    def _draw_waiting(self) -> None:
        if self._live:
            self._erase_waiting()
            if self._under_way:
                # Not a column more than there are: a line that wraps cannot be erased.
                columns = shutil.get_terminal_size().columns - 1
                say(f"  … {', '.join(self._under_way)}"[:columns], newline=False)

    def _style(self, text: str, colour: str) -> str:
        return click.style(text, fg=colour) if self._colour else text


def own_command(name: str) -> str:
    """How a shell calls a program of this environment from here: `.venv/bin/bidding` rather than its whole path."""
    program = Path(sys.executable).parent / name
    for folder in os.environ.get("PATH", "").split(os.pathsep):
        if folder and Path(folder) == program.parent:
            return name
    with_dots = os.path.relpath(program)
    return shlex.quote(with_dots if not with_dots.startswith(f"..{os.sep}") else str(program))


def welcome(urls: Urls, data_dir: Path, seconds: float) -> str:
    """What to open and what to try, once everything is ready."""
    bid = '{"user_id": "ann", "amount": 10.50}'
    feed_url = urls.broadcast_url.replace("http", "ws", 1)
    return f"""
Ready after {seconds:.1f} s.

  Open        {urls.gateway_url}/
  API         {urls.gateway_url}/docs
  Watch       {own_command("python")} -m websockets {feed_url}/ws/items/demo-1
  Bid         curl -sS {urls.gateway_url}/api/v1/items/demo-1/bid \\
                -H 'Content-Type: application/json' -d '{bid}'

{_upkeep(data_dir)}"""


def servers_welcome(urls: Urls, data_dir: Path, seconds: float) -> str:
    """What the services that one starts by hand need in their environment."""
    return f"""
Ready after {seconds:.1f} s.

  export REDIS_URL={shlex.quote(urls.redis_url)}
  export NATS_URL={shlex.quote(urls.nats_url)}
  export POSTGRES_URL={shlex.quote(urls.postgres_url)}

{_upkeep(data_dir)}"""


def _upkeep(data_dir: Path) -> str:
    return f"""\
  Status      {bidding_command("status", data_dir)}
  Logs        {bidding_command("logs -f", data_dir)}
  Data        {os.path.relpath(data_dir)}/
"""


def bidding_command(subcommand: str, data_dir: Path) -> str:
    """A command line for this data directory, to be shown."""
    folder = os.path.relpath(data_dir)
    option = "" if folder == ".bidding" else f" --data-dir {shlex.quote(folder)}"
    return f"{own_command('bidding')} {subcommand}{option}"


def no_platform(data_dir: Path) -> str:
    """What a command says that needs a platform and finds none."""
    return (
        f"No platform is up with its data in {data_dir}. Start it in another window: {bidding_command('up', data_dir)}"
    )
