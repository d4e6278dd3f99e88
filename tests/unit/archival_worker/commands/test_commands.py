"""Subcommands of ``python -m archival_worker`` are imported when they are called."""

from __future__ import annotations

import subprocess
import sys

import click
import pytest

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
    assert not {"archival_worker.main", "fastapi", "redis"}.intersection(imported)
