"""What the terminal is shown, and that nothing fails where there is no terminal left."""

from __future__ import annotations

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from infrastructure.local.services import Urls
from infrastructure.local.terminal import (
    TerminalReporter,
    bidding_command,
    graded,
    lines_of,
    own_command,
    render,
    servers_welcome,
    table,
    welcome,
)

URLS = Urls(
    redis_url="redis://127.0.0.1:1/0",
    nats_url="nats://127.0.0.1:2",
    postgres_url="postgresql://me:a&b@127.0.0.1:3/x?sslmode=disable&a=b",
    gateway_url="http://127.0.0.1:4",
    broadcast_url="http://127.0.0.1:5",
    archiver_url="http://127.0.0.1:6",
)


class Terminal(io.StringIO):
    """Takes output as a terminal does."""

    def isatty(self) -> bool:
        return True


def test_a_reader_that_has_gone_is_no_error() -> None:
    program = (
        "from infrastructure.local.terminal import TerminalReporter, say\n"
        "for _ in range(3):\n"
        "    say('to nobody')\n"
        "    TerminalReporter().notice('nor this')\n"
    )
    reader, writer = os.pipe()
    os.close(reader)
    try:
        done = subprocess.run([sys.executable, "-c", program], stdout=writer, stderr=subprocess.PIPE, timeout=60)
    finally:
        os.close(writer)
    assert (done.returncode, done.stderr) == (0, b"")


def test_the_line_that_moves_fits_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "30")
    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal()
    with contextlib.redirect_stdout(terminal):
        reporter = TerminalReporter()
        for name in ("api_gateway", "broadcast_service", "archival_worker"):
            reporter.step_started(name)
    drawn = re.split(r"\r|\x1b\[[?\d]*[A-Za-z]", terminal.getvalue())
    assert "  … api_gateway" in drawn
    assert max(map(len, drawn)) < 30


def test_a_command_in_a_folder_with_a_space_can_be_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "my folder" / "bin" / "python"))
    monkeypatch.chdir(tmp_path)
    assert shlex.split(own_command("bidding")) == ["my folder/bin/bidding"]


def test_what_is_to_be_exported_is_read_by_a_shell_as_it_is(tmp_path: Path) -> None:
    exports = [line for line in servers_welcome(URLS, tmp_path, 1.0).splitlines() if "export" in line]
    shell = "\n".join([*exports, 'printf "%s" "$POSTGRES_URL"'])
    done = subprocess.run(["/bin/sh", "-c", shell], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == URLS.postgres_url


def test_a_table_is_as_wide_as_what_is_in_it_and_believes_no_markup() -> None:
    rows = [("a", "[red]1[/red]", "x" * 300), ("long name", "12", "")]
    assert lines_of(table(rows, head=("NAME", "N", "TEXT"), right=(1,), indent=2)) == [
        "  NAME                  N  TEXT",
        f"  a          [red]1[/red]  {'x' * 300}",
        "  long name            12",
    ]


def test_findings_have_colours_and_each_line_of_advice_a_row() -> None:
    shown = render(graded([("disk", "fail", "full", "Make room.\nOr buy some.")]))
    assert "\x1b[31mfail\x1b[0m  disk  full" in shown
    assert lines_of(graded([("disk", "fail", "full", "Make room.\nOr buy some.")])) == [
        "fail  disk  full",
        "            → Make room.",
        "            → Or buy some.",
    ]


def test_what_is_under_way_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """The cursor is shown again, and the last line is gone, also where a step failed."""
    monkeypatch.setenv("TERM", "xterm")
    terminal = Terminal()
    with contextlib.redirect_stdout(terminal):
        reporter = TerminalReporter()
        reporter.step_started("redis")
        reporter.notice("wait")
        reporter.step_failed("redis", 1.0)
    shown = terminal.getvalue()
    assert shown.count("\x1b[?25l") == shown.count("\x1b[?25h") == 1
    assert shown.endswith("\x1b[2K")
    assert "✗" in shown


def test_commands_complete_themselves() -> None:
    environment = {**os.environ, "_BIDDING_COMPLETE": "bash_complete", "COMP_WORDS": "bidding d", "COMP_CWORD": "1"}
    program = "from infrastructure.local.cli import main; main(prog_name='bidding')"
    done = subprocess.run(
        [sys.executable, "-c", program], env=environment, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.split() == [
        "plain,down",
        "plain,demo",
        "plain,doctor",
        "plain,dead-letters",
        "plain,deploy-check",
        "plain,deploy",
    ]


def test_who_needs_a_token_is_shown_a_bid_with_one(tmp_path: Path) -> None:
    assert "Authorization" not in welcome(URLS, tmp_path, 1.0)
    with_token = welcome(URLS, tmp_path, 1.0, with_token=True).partition("  Bid ")[2].partition("\n\n")[0]
    assert shlex.split(with_token.replace("\\\n", ""))[-1].startswith("Authorization: Bearer $(")


def test_a_folder_elsewhere_is_shown_with_its_whole_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert f"Data        {tmp_path}/there/" in welcome(URLS, tmp_path / "there", 1.0)
    assert "Data        .bidding/" in welcome(URLS, tmp_path / "here" / ".bidding", 1.0)
    assert bidding_command("down", tmp_path / "there").endswith(f"--data-dir {tmp_path}/there")
