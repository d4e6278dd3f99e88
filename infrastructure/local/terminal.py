"""What the `bidding` command shows: progress while things start, tables, and texts that can be copied.

Rich makes the lines. If the output is no terminal, they have no colours and are not wrapped; NO_COLOR is honoured.
"""

from __future__ import annotations

import errno
import io
import os
import re
import shlex
import sys
import time
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import click
from rich.console import Console, RenderableType
from rich.live import Live
from rich.padding import Padding
from rich.table import Table
from rich.text import Text
from typing_extensions import override

from infrastructure.local.reporting import Reporter
from infrastructure.local.services import Urls

GRADES: Final = {"ok": "green", "warn": "yellow", "fail": "red"}
"""The colours of the grades of checks."""

_LABEL_WIDTH = 18
_WIDE: Final = 10_000
"""More columns than any table needs."""
_BLANK_END: Final = re.compile(r"(?: |\x1b\[[\d;]*m)+$", re.MULTILINE)
"""What pads a line, also in bold."""


class _Output(Console):
    """The current standard output. Printing never fails."""

    def __init__(self) -> None:
        super().__init__(highlight=False, markup=False, emoji=False)

    @override
    def on_broken_pipe(self) -> None:
        # Drop what is in the buffer, and all later output.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)

    @contextmanager
    def unfailing(self) -> Iterator[None]:
        """Ignore errors of output: processes must be stopped in order even if nothing can be printed, because the
        window was closed (EIO), the reader of a pipe is gone (EPIPE), or the disk with the log is full (ENOSPC)."""
        try:
            yield
        except OSError as error:
            if error.errno in (errno.EIO, errno.EPIPE):
                self.on_broken_pipe()


def say(text: str, *, end: str = "\n") -> None:
    """Print; never fails."""
    output = _Output()
    with output.unfailing():
        output.print(text, end=end, soft_wrap=True)


class TerminalReporter(Reporter):
    """Prints a line per finished step and, on a terminal, a last line with the steps under way."""

    def __init__(self) -> None:
        self._output = _Output()
        self._last_line = Live(
            console=self._output, auto_refresh=False, transient=True, redirect_stdout=False, redirect_stderr=False
        )
        self._under_way: list[str] = []
        self.started = time.monotonic()

    @override
    def step_started(self, label: str) -> None:
        self._under_way.append(label)
        self._draw()

    @override
    def step_done(self, label: str, seconds: float, note: str) -> None:
        self._finish(label, seconds, note, "✓", "green")

    @override
    def step_failed(self, label: str, seconds: float) -> None:
        self._finish(label, seconds, "", "✗", "red")

    @override
    def notice(self, text: str) -> None:
        first, *rest = text.splitlines() or [""]
        line = f" {time.strftime('%H:%M:%S')} {first}"
        self._print(Text.assemble("  ", ("!", "yellow"), "\n    ".join((line, *rest))))

    def _finish(self, label: str, seconds: float, note: str, mark: str, colour: str) -> None:
        if label in self._under_way:
            self._under_way.remove(label)
        self._print(Text.assemble("  ", (mark, colour), f" {label:<{_LABEL_WIDTH}} {seconds:5.1f} s  {note}".rstrip()))
        self._draw()

    def _print(self, line: Text) -> None:
        with self._output.unfailing():
            self._output.print(line, soft_wrap=True)

    def _draw(self) -> None:
        if not self._output.is_terminal:
            return
        line = Text(f"  … {', '.join(self._under_way)}")
        line.truncate(self._output.width - 1, overflow="ellipsis")
        with self._output.unfailing():
            if self._under_way:
                self._last_line.update(line)
                self._last_line.start()
                self._last_line.refresh()
            else:
                self._last_line.stop()


def table(
    rows: Iterable[Sequence[str | Text]], *, head: Sequence[str] = (), right: Collection[int] = (), indent: int = 0
) -> Padding:
    """Columns as wide as their contents, two blanks apart; those numbered in ``right`` are aligned to the right."""
    found = Table(*head, box=None, padding=(0, 2, 0, 0), pad_edge=False, show_header=bool(head))
    for row in rows:
        found.add_row(*row)
    for number, column in enumerate(found.columns):
        column.justify = "right" if number in right else "left"
    return Padding(found, (0, 0, 0, indent))


def graded(findings: Iterable[tuple[str, str, str, str]]) -> Padding:
    """A table of findings: check, grade, detail, and advice, which is empty or has lines."""
    rows: list[Sequence[str | Text]] = []
    for check, grade, detail, advice in findings:
        rows.append((Text(grade, style=GRADES[grade]), check, detail))
        rows += [("", "", f"→ {line}") for line in advice.splitlines()]
    return table(rows)


def render(shown: RenderableType) -> str:
    """The text to print, with colours, which `click.echo` removes if the output is no terminal. No line is wrapped, so
    that a path or a command in it can be copied."""
    output = Console(
        file=io.StringIO(),
        force_terminal=True,
        color_system="standard",
        no_color=False,
        width=_WIDE,
        highlight=False,
        markup=False,
        emoji=False,
    )
    with output.capture() as capture:
        output.print(shown)
    return _BLANK_END.sub(lambda end: "\x1b[0m" if "\x1b" in end[0] else "", capture.get().rstrip("\n"))


def lines_of(shown: RenderableType) -> list[str]:
    """The same lines without colours, for reports in plain text."""
    return click.unstyle(render(shown)).splitlines()


def show(shown: RenderableType) -> None:
    """Print it."""
    click.echo(render(shown))


def own_command(name: str) -> str:
    """How to call a program of this environment from here in a shell: `.venv/bin/bidding`, not its whole path."""
    program = Path(sys.executable).parent / name
    for folder in os.environ.get("PATH", "").split(os.pathsep):
        if folder and Path(folder) == program.parent:
            return name
    return shlex.quote(_from_here(program))


def _from_here(path: Path) -> str:
    """The path below the current folder, or the whole one where it is elsewhere."""
    below = os.path.relpath(path)
    return os.path.abspath(path) if below.startswith("..") else below


def welcome(urls: Urls, data_dir: Path, seconds: float, *, with_token: bool = False) -> str:
    """What to open and what to try, once everything is ready. ``with_token``: whether a bid needs a token."""
    bid = '{"user_id": "ann", "amount": 10.50}'
    feed_url = urls.broadcast_url.replace("http", "ws", 1)
    token = ""
    if with_token:
        token = f' \\\n                -H "Authorization: Bearer $({bidding_command("token ann", data_dir)})"'
    return f"""
Ready after {seconds:.1f} s.

  Open        {urls.gateway_url}/
  API         {urls.gateway_url}/docs
  Watch       {own_command("python")} -m websockets {feed_url}/ws/items/demo-1
  Bid         curl -sS {urls.gateway_url}/api/v1/items/demo-1/bid \\
                -H 'Content-Type: application/json' -d '{bid}'{token}

{_upkeep(data_dir)}"""


def servers_welcome(urls: Urls, data_dir: Path, seconds: float) -> str:
    """What services that are started by hand need in their environment."""
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
  Data        {_from_here(data_dir)}/
"""


def bidding_command(subcommand: str, data_dir: Path) -> str:
    """A command line for this data directory, to show."""
    folder = _from_here(data_dir)
    option = "" if folder == ".bidding" else f" --data-dir {shlex.quote(folder)}"
    return f"{own_command('bidding')} {subcommand}{option}"


def no_platform(data_dir: Path) -> str:
    """The message of a command that needs a platform and finds none."""
    return (
        f"No platform is up with its data in {data_dir}. Start it in another window: {bidding_command('up', data_dir)}"
    )
