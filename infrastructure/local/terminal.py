"""Progress on a terminal: a line per finished step, and, where the output is one, a last line that moves."""

from __future__ import annotations

import os
import shlex
import sys
import time
from pathlib import Path

import click

from infrastructure.local.reporting import Reporter
from infrastructure.local.services import Urls

_LABEL_WIDTH = 18


class TerminalReporter(Reporter):
    """Prints what happens. Colours and the moving line appear on a terminal only (NO_COLOR is honoured)."""

    def __init__(self) -> None:
        self._live = sys.stdout.isatty()
        self._colour = self._live and not os.environ.get("NO_COLOR")
        self._under_way: list[str] = []
        self.started = time.monotonic()

    def step_started(self, label: str) -> None:
        self._under_way.append(label)
        self._draw_waiting()

    def step_done(self, label: str, seconds: float, note: str) -> None:
        self._finish(label, seconds, note, "✓", "green")

    def step_failed(self, label: str, seconds: float) -> None:
        self._finish(label, seconds, "", "✗", "red")

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
        click.echo(line, color=self._colour)
        self._draw_waiting()

    def _erase_waiting(self) -> None:
        if self._live:
            click.echo("\r\x1b[K", nl=False, color=True)

    def _draw_waiting(self) -> None:
        if self._live:
            self._erase_waiting()
            if self._under_way:
                click.echo(f"  … {', '.join(self._under_way)}", nl=False)

    def _style(self, text: str, colour: str) -> str:
        return click.style(text, fg=colour) if self._colour else text


def own_command(name: str) -> str:
    """How to call a program of this environment from here: `.venv/bin/bidding` rather than its whole path."""
    program = Path(sys.executable).parent / name
    for folder in os.environ.get("PATH", "").split(os.pathsep):
        if folder and Path(folder) == program.parent:
            return name
    with_dots = os.path.relpath(program)
    return with_dots if not with_dots.startswith(f"..{os.sep}") else str(program)


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

  export REDIS_URL={urls.redis_url}
  export NATS_URL={urls.nats_url}
  export POSTGRES_URL={urls.postgres_url}

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
