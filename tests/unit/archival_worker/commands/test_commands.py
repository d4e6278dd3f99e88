"""Subcommands of ``python -m archival_worker`` are imported when they are called."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from archival_worker.__main__ import COMMANDS, cli

_LISTED = "import sys, archival_worker.__main__; print(*sys.modules, sep='\\n')"


@pytest.mark.parametrize("name", COMMANDS)
def test_each_is_there_under_its_name(name: str) -> None:
    found = cli.get_command(click.Context(cli), name)
    assert found is not None
    assert found.name == name


def test_none_is_imported_before_it_is_called() -> None:
    command = (sys.executable, "-c", _LISTED)
    imported = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout.split()
    assert not {place.partition(":")[0] for place in COMMANDS.values()}.intersection(imported)
    assert not {"archival_worker.main", "fastapi", "redis", "nats"}.intersection(imported)


def test_what_is_no_export_is_an_error_like_every_other(tmp_path: Path) -> None:
    told = CliRunner().invoke(cli, ["verify-export", str(tmp_path)])
    assert (told.exit_code, told.output) == (2, f"Error: {tmp_path}: Is a directory\n")


@pytest.mark.parametrize("said", [["--by", "a b"], ["--reason", "x" * 501], ["--reason", "a\nb"]], ids=str)
def test_who_acts_and_why_is_said_in_a_line(said: list[str]) -> None:
    told = CliRunner().invoke(cli, ["api-keys", "revoke", "abcdefghijkl", *said])
    assert (told.exit_code, told.output.startswith(f"Error: {said[0]}: ")) == (1, True), told.output
