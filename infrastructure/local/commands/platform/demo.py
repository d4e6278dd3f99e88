"""`bidding demo`: lots and simulated bidders for a running platform."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from pathlib import Path

import click

from infrastructure.local.commands.failing import Failure
from infrastructure.local.commands.helping import examples
from infrastructure.local.commands.running import gateway_of, gateway_options
from infrastructure.local.demo.room import Tally
from infrastructure.local.demo.runner import Demo, DemoError, DemoPlan
from infrastructure.local.demo.tokens import Tokens
from infrastructure.local.errors import StackError
from infrastructure.local.services import wants_own_issuer
from infrastructure.local.signing_key import signing_key


@click.command(
    epilog=examples(
        "bidding demo",
        "bidding demo --lots 40 --rate 20 --for 60",
        then="Exit codes: 0 ended as asked, 1 the platform does not answer or went away, 2 none is up.",
    )
)
@gateway_options
@click.option("--lots", default=12, show_default=True, type=click.IntRange(1, 200), help="Open lots at any time.")
@click.option("--bidders", default=24, show_default=True, type=click.IntRange(2, 1_000), help="Simulated people.")
@click.option("--rate", default=4.0, show_default=True, type=click.FloatRange(0.1, 500), help="Bids per second.")
@click.option("--for", "seconds", type=click.FloatRange(min=1), help="Seconds to run; by default until Ctrl-C.")
@click.option("--seed", type=int, help="The same number makes the same lots and bidders.")
def demo(
    data_dir: Path,
    gateway_url: str | None,
    lots: int,
    bidders: int,
    rate: float,
    seconds: float | None,
    seed: int | None,
) -> None:
    """Fill the platform with lots and bidders.

    Needs `bidding up` beside it. The lots that are open at the end stay, and end by themselves.
    """
    url = gateway_of(data_dir, gateway_url)
    seed = random.randrange(1_000_000) if seed is None else seed
    # Makes the ids differ from an earlier run's: the same seed makes the same lots, and those are over by now.
    tag = f"{int(time.time()):x}"
    plan = DemoPlan(
        url, lots=lots, bidders=bidders, rate=rate, seconds=seconds, seed=seed, tag=tag, tokens=_tokens(data_dir)
    )
    click.echo(f"{lots} lots, {bidders} bidders, {rate:g} bids/s, seed {seed}. Watch them at {url}/")
    if seconds is None:
        click.echo("Ctrl-C ends the demo.")
    asyncio.run(_run(plan))


def _tokens(data_dir: Path) -> Tokens | None:
    """Tokens of the embedded platform, if it demands them."""
    if not wants_own_issuer(os.environ):
        return None
    try:
        return Tokens(signing_key(data_dir), os.environ)
    except StackError as error:
        raise Failure(str(error)) from error


async def _run(plan: DemoPlan) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    running = Demo(plan, click.echo)
    began_s = time.monotonic()
    try:
        await running.run(stop)
    except DemoError as error:
        raise Failure(str(error)) from error
    finally:
        click.echo(summary(running.tally, running.still_open, time.monotonic() - began_s))


def summary(tally: Tally, still_open: int, seconds: float) -> str:
    """What the demo did, in a few lines."""
    refused, ended = sum(tally.refused.values()), sum(tally.ended.values())
    lines = [
        f"\n{tally.accepted} bids accepted in {seconds:.0f} s, {refused} not{_by_code(tally.refused)}.",
        f"{tally.opened} lots opened, {ended} over{_by_code(tally.ended)}, {still_open} still going.",
    ]
    if tally.troubles:
        lines.append(f"The platform was busy, away or unwilling{_by_code(tally.troubles)}.")
    if tally.bids_of:
        [(item_id, bids)] = tally.bids_of.most_common(1)
        lines.append(f"Most wanted: {item_id}, {bids} bids.")
    return "\n".join(lines)


def _by_code(counts: dict[str, int]) -> str:
    parts = [f"{count} {code}" for code, count in sorted(counts.items(), key=lambda each: -each[1])]
    return f" ({', '.join(parts)})" if parts else ""
