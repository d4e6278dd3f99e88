"""`bidding cache`: the read cache of the running platform, as its nodes and its front end tell it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import httpx2 as httpx

from infrastructure.local.cache_nodes import CACHE_NODE, FRONT_END
from infrastructure.local.commands.failing import Failure
from infrastructure.local.commands.helping import SuggestingGroup, examples
from infrastructure.local.commands.options import data_dir_option
from infrastructure.local.state import RunRecord, run_path
from infrastructure.local.terminal import bidding_command, no_platform, show, table

_TIMEOUT_S = 10.0
_MIB = 1024**2


@click.group(cls=SuggestingGroup)
def cache() -> None:
    """Look at the read cache.

    `bidding up --cache-nodes 3` starts one.
    """


def _addresses(data_dir: Path) -> dict[str, str]:
    """Where the nodes and the front end answer HTTP, by the names of their processes."""
    record = RunRecord.read(run_path(data_dir))
    if record is None or record.supervisor.find() is None:
        raise Failure(no_platform(data_dir))
    found = {
        name: entry.address
        for name, entry in record.processes.items()
        if name == FRONT_END or name.startswith(f"{CACHE_NODE}-")
    }
    if FRONT_END not in found:
        start = bidding_command("up --cache-nodes 3", data_dir)
        raise Failure(f"The platform runs without cache nodes. Start it with some: {start}")
    return found


def _ask(url: str, **parameters: str) -> httpx.Response | None:
    """The answer to a GET, None where there is none."""
    try:
        return httpx.get(url, params=parameters or None, timeout=_TIMEOUT_S, trust_env=False)
    except httpx.HTTPError:
        return None


def _json(answer: httpx.Response) -> dict[str, Any] | None:
    """The object in an answer; None where it is something else, as of a proxy or another program at that port."""
    try:
        told = answer.json()
    except ValueError:
        return None
    return told if isinstance(told, dict) else None


def _stats(data_dir: Path) -> Iterator[tuple[str, dict[str, Any] | None]]:
    for name, address in _addresses(data_dir).items():
        answer = _ask(f"{address}/stats")
        yield name, _json(answer) if answer is not None and answer.status_code == 200 else None


@cache.command("ring", epilog=examples("bidding cache ring"))
@data_dir_option
def ring(data_dir: Path) -> None:
    """Show the ring as each process sees it.

    They agree if all epochs are equal. Exit code 1 if they do not.
    """
    told = dict(_stats(data_dir))
    front_end = told[FRONT_END]
    # A front end does not tell addresses.
    teller = next((seen for name, seen in told.items() if name != FRONT_END and seen and seen["nodes"]), front_end)
    if teller is not None and teller["nodes"]:
        rows = [
            (name, address or "-", f"{teller['shares'][name]:.1%}") for name, address in sorted(teller["nodes"].items())
        ]
        show(table(rows, head=("NODE", "ADDRESS", "KEYS"), right={2}))
        click.echo()
    views = [
        (name, "-" if seen is None or seen["epoch"] is None else str(seen["epoch"]), _nodes(seen))
        for name, seen in told.items()
    ]
    show(table(views, head=("SEEN BY", "EPOCH", "NODES"), right={1}))
    if len({view[1:] for view in views}) != 1 or views[0][1] == "-":
        click.echo("They do not agree at this moment.")
        sys.exit(1)


def _nodes(seen: dict[str, Any] | None) -> str:
    return "does not answer" if seen is None else ", ".join(sorted(seen["nodes"])) or "none"


@cache.command("get", epilog=examples("bidding cache get items/lamp"))
@click.argument("key")
@data_dir_option
def get(key: str, data_dir: Path) -> None:
    """Print what the front end has under KEY.

    A key is items/<item> or items/<item>/bids. Exit code 1 if there is no value.
    """
    answer = _ask(f"{_addresses(data_dir)[FRONT_END]}/api", key=key)
    if answer is None:
        raise Failure("The front end does not answer.")
    if answer.status_code != 200:
        told = _json(answer)
        detail = told.get("detail") if told is not None else None
        raise Failure(str(detail or f"The front end answers with status {answer.status_code}."))
    click.echo(answer.text)


@cache.command("stats", epilog=examples("bidding cache stats"))
@data_dir_option
def stats(data_dir: Path) -> None:
    """Show what each node keeps, and how it answered.

    The figures count from each start, and include the front end.
    """
    rows = []
    for name, seen in _stats(data_dir):
        if seen is None:
            rows.append((name, "does not answer", *[""] * 7))
            continue
        counts = seen["counts"]
        used, most = seen["bytes_used"] / _MIB, seen["bytes_max"] / _MIB
        hits = counts["hits"] + counts["mirror_hits"] + counts["served_hits"]
        asked = counts["gets"] + counts["served"]
        rows.append(
            (
                name,
                "keeps nothing" if seen["keeping"] is False else "ready",
                f"{seen['entries']:,}",
                f"{used:.1f} of {most:.0f} MB",
                f"{asked:,}",
                f"{hits / asked:.1%}" if asked else "-",
                f"{counts['loads']:,}",
                f"{counts['fetches']:,}",
                f"{counts['shed']:,}",
            )
        )
    head = ("NAME", "STATE", "ENTRIES", "MEMORY", "ASKED", "HITS", "LOADS", "FETCHES", "SHED")
    show(table(rows, head=head, right={2, 3, 4, 5, 6, 7, 8}))
