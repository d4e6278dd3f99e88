"""`bidding import`: lots from a file."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import click
import httpx2 as httpx

from infrastructure.local.commands.failing import Failure
from infrastructure.local.commands.helping import examples
from infrastructure.local.commands.running import gateway_of, gateway_options, token_headers
from infrastructure.local.importing.lots_file import FileWrong, LineWrong, Lot, read_lots
from infrastructure.local.importing.sender import TIMEOUT_S, PlatformAway, Sender, groups

_SHOWN_MAX: Final = 20
"""Wrong lines that are shown."""
_PROGRESS_S: Final = 1.0


@click.command(
    "import",
    short_help="Create the lots of a file.",
    epilog=examples(
        "bidding import lots.csv --dry-run",
        "bidding import lots.csv",
        then="Exit codes: 0 all lots are there, 1 lines are wrong, 2 the platform is not up, or does not take them.",
    ),
)
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@gateway_options
@click.option("--dry-run", is_flag=True, help="Only check the file, here and at the gateway; create nothing.")
def import_lots(file: Path, data_dir: Path, gateway_url: str | None, dry_run: bool) -> None:
    """Create the lots in FILE: CSV with column names in the first line (.csv), or one JSON object per line, as in
    `POST /items`.

    The command reads the whole file first: if a line is wrong, it creates nothing. Run the same command again to
    continue after an interruption, as often as you like: it creates no lot twice, even without an id.

    With AUTH_MODE=jwt one caller may create 5,000 lots at once and then 500 a second (GATEWAY_ITEMS_RATE_MAX): 20,000
    lots take half a minute. The command waits by itself.
    """
    try:
        if not file.is_file():
            raise FileWrong(f"{file} is not a regular file: it is read twice, so save it first")
        count = _checked(file)
        url = gateway_of(data_dir, gateway_url)
        sys.exit(asyncio.run(_send(file, count, url, dry_run=dry_run)))
    except FileWrong as error:
        raise Failure(str(error)) from error


def _checked(file: Path) -> int:
    """How many lots the file has. Ends the command where lines are wrong."""
    count = 0
    wrong: list[LineWrong] = []
    for lot in read_lots(file):
        if isinstance(lot, LineWrong):
            wrong.append(lot)
        else:
            count += 1
    if wrong:
        _show([str(error) for error in wrong])
        click.secho(f"{len(wrong):,} wrong lines, {count:,} others. Nothing was created.", fg="red", err=True)
        sys.exit(1)
    return count


def _lots(file: Path) -> Iterator[Lot]:
    for lot in read_lots(file):
        if isinstance(lot, LineWrong):
            raise FileWrong(f"the file has changed meanwhile: {lot}")
        yield lot


async def _send(file: Path, count: int, url: str, *, dry_run: bool) -> int:
    async with httpx.AsyncClient(base_url=url, timeout=TIMEOUT_S, trust_env=False, headers=token_headers()) as http:
        sender = Sender(http, dry_run=dry_run)
        tally = sender.tally
        shown_s = time.monotonic()
        away: PlatformAway | None = None
        try:
            for group in groups(_lots(file)):
                await sender.send(group)
                if time.monotonic() - shown_s >= _PROGRESS_S:
                    shown_s = time.monotonic()
                    click.echo(f"{tally.done:,} of {count:,}")
        except PlatformAway as error:
            away = error
    _show([f"line {line}: {why}" for line, why in tally.wrong])
    told = (
        f"{tally.valid:,} could be created" if dry_run else f"{tally.created:,} created, {tally.there:,} there already"
    )
    click.echo(f"{told}, {len(tally.wrong):,} refused, of {count:,} lots.")
    if away is not None:
        click.secho(f"The platform does not take the others: {away}\nRun the same command again.", fg="red", err=True)
        return 2
    if tally.done != count:
        raise FileWrong(f"the file has changed meanwhile: {tally.done:,} of {count:,} lots were sent; run it again")
    return 1 if tally.wrong else 0


def _show(errors: list[str]) -> None:
    for text in errors[:_SHOWN_MAX]:
        click.echo(text, err=True)
    if len(errors) > _SHOWN_MAX:
        click.echo(f"… and {len(errors) - _SHOWN_MAX:,} more", err=True)
