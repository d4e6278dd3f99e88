"""`bidding audit` and `bidding verify-export`: the archive's own programs, with the addresses of this machine."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import click

from infrastructure.local.commands.failing import NobodyToAsk
from infrastructure.local.commands.helping import examples
from infrastructure.local.commands.options import data_dir_option
from infrastructure.local.services import ARCHIVAL_WORKER, exports_here
from infrastructure.local.state import RunRecord, run_path
from infrastructure.local.terminal import no_platform


@click.command(epilog=examples("bidding audit lamp", "bidding audit lamp --json"))
@click.argument("item_id")
@data_dir_option
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
def audit(item_id: str, data_dir: Path, as_json: bool) -> None:
    """Check that nobody has changed the archive of ITEM_ID.

    It recomputes the chain of hashes over all events in PostgreSQL, and names the first row that does not fit. For a
    retired item it reads the export. It uses POSTGRES_URL if that is set, otherwise the platform that is up here. Exit
    code 0: all rows fit, 1: one does not, 2: it could not check.
    """
    environment = dict(os.environ)
    record = RunRecord.read(run_path(data_dir))
    if not environment.get("POSTGRES_URL"):
        if record is None:
            raise NobodyToAsk(no_platform(data_dir))
        environment["POSTGRES_URL"] = record.urls["postgres_url"]
    environment |= exports_here(data_dir, environment)
    _run(["audit", *(["--json"] if as_json else []), "--", item_id], environment)


@click.command(epilog=examples("bidding verify-export lamp.jsonl.gz"))
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
def verify_export(file: Path, as_json: bool) -> None:
    """Check an exported FILE: its chain, its counts, its prices. Needs no server.

    It names the first line that does not fit. Exit code 0: all lines fit, 1: one does not, 2: it is not an export.
    """
    _run(["verify-export", *(["--json"] if as_json else []), "--", str(file)], dict(os.environ))


def _run(arguments: list[str], environment: dict[str, str]) -> None:
    """Run the archiver's program, with its output and exit code. This package never imports services."""
    sys.exit(subprocess.run([sys.executable, "-P", "-m", ARCHIVAL_WORKER, *arguments], env=environment).returncode)
