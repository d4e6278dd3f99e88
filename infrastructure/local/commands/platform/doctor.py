"""`bidding doctor`: whether this machine has everything that a start needs, and what to do if not."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from pathlib import Path
from typing import Any

import click

from infrastructure.local.commands.helping import examples
from infrastructure.local.commands.options import data_dir_option, port_options, ports_from
from infrastructure.local.doctor import examine
from infrastructure.local.terminal import graded, show


@click.command(epilog=examples("bidding doctor"))
@data_dir_option
@port_options
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
def doctor(data_dir: Path, as_json: bool, **ports: Any) -> None:
    """Check this machine. Exit code 1 when something would keep the platform from starting."""
    findings = examine(data_dir, ports_from(ports), os.environ)
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(finding) for finding in findings], indent=2))
    else:
        show(graded(dataclasses.astuple(finding) for finding in findings))
    failures = sum(finding.grade == "fail" for finding in findings)
    if not as_json:
        click.echo(f"\n{failures} of {len(findings)} checks failed." if failures else "\nReady to start: bidding up")
    sys.exit(1 if failures else 0)
