"""`bidding recover`, `retention` and `dead-letters`: the archival worker's commands, on the servers of this machine.

The commands themselves belong to the service that owns the archive. In containers they run as
`python -m archival_worker`; here they get the addresses of the servers.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from infrastructure.local.commands.failing import Failure
from infrastructure.local.commands.helping import SuggestingGroup, examples
from infrastructure.local.commands.options import data_dir_option
from infrastructure.local.servers.ports import Ports
from infrastructure.local.services import ARCHIVAL_WORKER, exports_here
from infrastructure.local.stack import Stack
from infrastructure.local.state import RunRecord, run_path
from infrastructure.local.terminal import no_platform

Command = TypeVar("Command", bound=Callable[..., Any])

_URLS = ("redis_url", "nats_url", "postgres_url")


def server_options(command: Command) -> Command:
    """Where the servers are: from these options, the environment, or the data directory's run."""
    for name in reversed(_URLS):
        option, setting = "--" + name.replace("_", "-"), name.upper()
        text = "Another server than that of `bidding up`."
        command = click.option(option, name, envvar=setting, show_envvar=True, help=text)(command)
    return data_dir_option(command)


def acting(command: Command) -> Command:
    """Who acts, and why, for the record: the worker's own options."""
    reason = click.option("--reason", help="The reason, for the record: `bidding acts`.")
    return reason(click.option("--by", metavar="USER", help="Who does this, for the record; by default you.")(command))


def acting_flags(by: str | None, reason: str | None) -> list[str]:
    """The options of :func:`acting` as the worker takes them."""
    return [*(["--by", by] if by is not None else []), *(["--reason", reason] if reason is not None else [])]


def run_worker(
    arguments: list[str], data_dir: Path, urls: dict[str, str | None], more: Mapping[str, str] | None = None
) -> None:
    """Run the worker's command and end with its exit code. URLs go through the environment: they may hold passwords.

    Args:
        more: what else its environment is to have.
    """
    given = {name: url for name, url in urls.items() if url}
    record = RunRecord.read(run_path(data_dir))
    if record is None and not given:
        # Do not try the default ports: another platform may listen there.
        raise Failure(no_platform(data_dir))
    known = record.urls if record is not None else Stack(data_dir, ports=Ports(), services=()).urls.as_dict()
    environment = dict(os.environ) | {name.upper(): given.get(name) or known[name] for name in _URLS} | dict(more or {})
    sys.exit(subprocess.run([sys.executable, "-P", "-m", ARCHIVAL_WORKER, *arguments], env=environment).returncode)


@click.command(
    epilog=examples(
        "bidding recover --dry-run",
        "bidding recover",
        then="Exit codes: 0 rebuilt, 1 not or not all of it (run it again), 3 nothing to rebuild.",
    ),
)
@server_options
@click.option("--dry-run", is_flag=True, help="Say what the command would do, and change nothing.")
@click.option("--settle-s", type=click.FloatRange(min=0), help="Seconds to wait for late events of the old Redis.")
@click.option("--without-stream", is_flag=True, help="Do without NATS: events that were not archived do not come back.")
@click.option("--whole-stream", is_flag=True, help="Read the whole stream, because PostgreSQL is an older copy.")
@click.option("--item", metavar="ID", help="Rebuild the shard of this item, which alone is lost.")
@acting
def recover(
    data_dir: Path,
    dry_run: bool,
    settle_s: float | None,
    without_stream: bool,
    whole_stream: bool,
    item: str | None,
    by: str | None,
    reason: str | None,
    **urls: str | None,
) -> None:
    """Rebuild what Redis has lost.

    It rebuilds from PostgreSQL and the stream. Leave the services running: gateways refuse bids until their items are
    rebuilt, and then take bids again by themselves.
    """
    flags = {"--dry-run": dry_run, "--without-stream": without_stream, "--whole-stream": whole_stream}
    arguments = ["recover", *(flag for flag, given in flags.items() if given), *acting_flags(by, reason)]
    if settle_s is not None:
        arguments += ["--settle-s", str(settle_s)]
    if item is not None:
        arguments += ["--item", item]
    run_worker(arguments, data_dir, urls)


@click.command(
    epilog=examples(
        "bidding retention --older-than 400d",
        "bidding retention --older-than 400d --remove",
        then="Exit codes: 0 done, 1 items stay because their export or log is wrong, 3 nothing was done.",
    ),
)
@server_options
@click.option("--older-than", required=True, metavar="DAYS", help="Least time since the end of an item, such as 400d.")
@click.option("--remove", is_flag=True, help="Remove the bids. Without this, only say what would be removed.")
@click.option("--items-max", type=click.IntRange(min=1), help="Most items that retire in one run.")
@click.option("--by", metavar="NAME", help="Who retires them, for the record.")
def retention(
    data_dir: Path, older_than: str, remove: bool, items_max: int | None, by: str | None, **urls: str | None
) -> None:
    """Remove the bids of old items from the archive.

    It first reads the exports of items that ended long ago back, and then removes their bids. The items are shown as
    before; a request for their bids gets the name of the export. It looks for exports in EXPORT_S3_BUCKET or
    EXPORT_DIR, or in the folder of the platform that is up here.
    """
    arguments = ["retention", "--older-than", older_than, *(["--remove"] if remove else [])]
    if items_max is not None:
        arguments += ["--items-max", str(items_max)]
    if by is not None:
        arguments += ["--by", by]
    run_worker(arguments, data_dir, urls, exports_here(data_dir, os.environ))


@click.group("dead-letters", cls=SuggestingGroup)
def dead_letters() -> None:
    """List messages that could not be archived, or retry them."""


@dead_letters.command("list", epilog=examples("bidding dead-letters list"))
@server_options
@click.option("--all", "with_stored", is_flag=True, help="Also show those that a retry has settled.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
def list_letters(data_dir: Path, with_stored: bool, as_json: bool, **urls: str | None) -> None:
    """Show the dead letters, oldest first."""
    flags = {"--all": with_stored, "--json": as_json}
    run_worker(["dead-letters", "list", *(flag for flag, given in flags.items() if given)], data_dir, urls)


@dead_letters.command(
    "retry",
    epilog=examples(
        "bidding dead-letters retry 3 4",
        "bidding dead-letters retry --all",
        then="Exit codes: 0 all of them are stored, 1 some are not.",
    ),
)
@server_options
@click.argument("ids", nargs=-1, type=click.IntRange(min=1))
@click.option("--all", "every", is_flag=True, help="Retry all that are not settled yet.")
@acting
def retry_letters(
    data_dir: Path, ids: tuple[int, ...], every: bool, by: str | None, reason: str | None, **urls: str | None
) -> None:
    """Store the letters of these IDS again.

    A clash can be stored only after its place in the archive is mended; an event of a former epoch never.
    """
    flags = ["--all"] if every else []
    run_worker(["dead-letters", "retry", *flags, *acting_flags(by, reason), "--", *map(str, ids)], data_dir, urls)


@click.command(epilog=examples("bidding acts", "bidding acts --limit 200 --json"))
@server_options
@click.option("--limit", type=click.IntRange(min=1), help="The most acts to show; by default 50.")
@click.option("--before", type=click.IntRange(min=1), metavar="ID", help="Show acts before this one: the next page.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
def acts(data_dir: Path, limit: int | None, before: int | None, as_json: bool, **urls: str | None) -> None:
    """Show what operators did to the platform: who, when, why.

    Newest first: tokens and API keys that were made or revoked, dead letters that were retried, shards that were
    rebuilt. Pauses, voids and rulings are in the audit of the item or the bidder.
    """
    numbers = {"--limit": limit, "--before": before}
    given = [part for option, number in numbers.items() if number is not None for part in (option, str(number))]
    run_worker(["acts", *given, *(["--json"] if as_json else [])], data_dir, urls)
