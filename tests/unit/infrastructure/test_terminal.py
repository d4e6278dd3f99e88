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
from infrastructure.local.terminal import TerminalReporter, own_command, servers_welcome

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
    terminal = Terminal()
    with contextlib.redirect_stdout(terminal):
        reporter = TerminalReporter()
        for name in ("api_gateway", "broadcast_service", "archival_worker"):
            reporter.step_started(name)
    drawn = re.split(r"\r|\x1b\[K", terminal.getvalue())
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
