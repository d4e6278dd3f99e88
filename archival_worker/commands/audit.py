"""``python -m archival_worker audit`` and ``verify-export``: is the archive, or an export of it, as it was written?"""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import click

from archival_worker.chain.audit import audit as audit_item
from archival_worker.chain.export_file import BadLine, NotAnExport, verify
from archival_worker.chain.report import AuditImpossible
from archival_worker.chain.sinks import ReadableSink, open_sink
from archival_worker.errors import ExportsMisconfigured
from archival_worker.settings import Settings

EXIT_UNSOUND: Final = 1
EXIT_UNKNOWN: Final = 2


@contextmanager
def sink_of(settings: Settings) -> Iterator[ReadableSink | None]:
    """The sink of the exports, open within the context; None if no place is configured.

    Raises:
        click.ClickException: it cannot be opened.
    """
    try:
        sink = open_sink(
            folder=settings.export_dir,
            bucket=settings.export_s3_bucket,
            endpoint_url=settings.aws_endpoint_url,
            timeout_s=settings.export_timeout_s,
        )
    except ExportsMisconfigured as error:
        raise click.ClickException(str(error)) from error
    try:
        yield sink
    finally:
        if sink is not None:
            sink.close()


@click.command("audit")
@click.argument("item_id")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
@click.pass_obj
def audit(settings: Settings, item_id: str, as_json: bool) -> None:
    """Recompute the chain of ITEM_ID from PostgreSQL; of a retired item from its export. Exit code 0: it fits, 1: it
    does not, 2: the audit was impossible."""
    try:
        with sink_of(settings) as sink:
            report = asyncio.run(audit_item(settings.postgres_url, item_id, sink=sink))
    except AuditImpossible as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(EXIT_UNKNOWN)
    click.echo(report.json() if as_json else report.text())
    sys.exit(0 if report.is_sound else EXIT_UNSOUND)


@click.command("verify-export")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
def verify_export(file: Path, as_json: bool) -> None:
    """Check an exported FILE; needs no server. Exit code 0: it fits, 1: it does not, 2: it is no export."""
    try:
        found = verify(file)
    except NotAnExport as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(EXIT_UNKNOWN)
    except BadLine as error:
        answer = {"sound": False, "line": error.line, "reason": error.reason}
        click.echo(json.dumps(answer) if as_json else f"{file}: {error}")
        sys.exit(EXIT_UNSOUND)
    if as_json:
        click.echo(json.dumps({"sound": True, **found.told()}))
    else:
        click.echo(
            f"{file}: {found.item_id}, {found.events} events fit ({found.bids} bids, {found.voids} voids), "
            f"up to {found.head.place}. Head: {found.head.hash.hex()}"
        )
