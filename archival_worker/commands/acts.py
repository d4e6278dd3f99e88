"""``python -m archival_worker acts``: what operators did to the platform, and who."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Final

import click

from archival_worker.commands.recovery import one_line
from archival_worker.settings import Settings
from archival_worker.store.acts import LISTED_MAX, ActRow, newest
from archival_worker.store.archive import Archive
from shared.clients.postgres import open_postgres
from shared.domain.errors import BiddingError
from shared.timefmt import from_datetime, to_rfc3339

_NAME: Final = "archival-worker-operator"
_TIMEOUT_S: Final = 30.0


@click.command("acts")
@click.option(
    "--limit", type=click.IntRange(1, LISTED_MAX), default=50, show_default=True, help="The most acts to show."
)
@click.option("--before", type=click.IntRange(min=1), metavar="ID", help="Show acts before this one: the next page.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
@click.pass_obj
def acts(settings: Settings, limit: int, before: int | None, as_json: bool) -> None:
    """Show what operators did to the platform, newest first: who, when, why.

    Tokens and API keys that were made or revoked, dead letters that were tried again, shards that were rebuilt. What
    was done to an item, or ruled on a bidder, is in the audit of that.
    """
    try:
        found = asyncio.run(_read(settings, before, limit))
    except (BiddingError, OSError, TimeoutError) as error:
        raise click.ClickException(str(error) or type(error).__name__) from error
    if as_json:
        rows = [asdict(row) | {"done_at": to_rfc3339(from_datetime(row.done_at))} for row in found]
        click.echo(json.dumps(rows, indent=2))
        return
    click.echo(table(found))
    if len(found) == limit:
        click.echo(f"Older ones: --before {found[-1].act_id}", err=True)


async def _read(settings: Settings, before: int | None, limit: int) -> Sequence[ActRow]:
    pool = await open_postgres(settings.postgres_url, name=_NAME, connections_max=1, timeout_s=_TIMEOUT_S)
    try:
        return await newest(Archive(pool), before=before, count=limit)
    finally:
        pool.terminate()


def table(found: Sequence[ActRow]) -> str:
    """The acts for a terminal. Reasons vary in length, so they come last."""
    if not found:
        return "There are no acts yet, or none before that one."
    rows = [("ID", "AT", "ACT", "TARGET", "BY", "LOGIN", "REASON")]
    rows += [
        (
            str(row.act_id),
            row.done_at.strftime("%Y-%m-%d %H:%M:%S"),
            row.act,
            one_line(row.target),
            one_line(row.actor),
            one_line(row.login),
            one_line(row.reason) or "-",
        )
        for row in found
    ]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    return "\n".join("  ".join([*map(str.ljust, row[:-1], widths), row[-1]]) for row in rows)
