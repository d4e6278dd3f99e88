"""The command: options, what is refused, and the run."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import click

from infrastructure.local.commands.helping import examples
from infrastructure.local.commands.options import Number
from load_tests.durations import whole_seconds
from load_tests.experiments.common.guard import require_descriptors
from load_tests.experiments.common.options import asked_from, counts, out_from, place_options
from load_tests.experiments.common.platform import Asked, open_platform
from load_tests.experiments.common.session import Session, conduct, settings_of
from load_tests.experiments.fanout.steps import Fanout, fan_out


@click.command(
    context_settings={"show_default": True},
    epilog=examples("bidding experiment fanout --private --connections 100,500 --out fanout.json"),
)
@click.option(
    "--connections",
    callback=counts(1, 100_000),
    default="100,500,1000,5000,10000",
    help="Viewers of each step, rising.",
)
@click.option("--duration", "duration_s", callback=whole_seconds, default="10s", help="Time of the bids of a step.")
@click.option("--rate", type=Number(0.1, 20), default=5.0, help="Bids/s; above 20/s the feed shows states.")
@click.option("--slow", type=click.IntRange(0, 10_000), default=0, help="Further viewers who stop reading.")
@click.option("--processes", type=click.IntRange(1, 64), default=1, help="Least number of viewer processes.")
@place_options
def fanout(
    connections: tuple[int, ...], duration_s: int, rate: float, slow: int, processes: int, **options: Any
) -> None:
    """More and more viewers of one item: how long a bid takes to their screens, and whether each was told of each.

    Without --target: the platform that is up here, else a private one.
    """
    plan = Fanout(connections, duration_s, rate, slow, processes)
    session = Session("fanout", out_from(options, "fanout"), settings_of(plan))
    conduct(session, lambda it: _run(it, plan, asked_from(options)))


async def _run(session: Session, plan: Fanout, asked: Asked) -> bool:
    most = max(plan.connections)
    require_descriptors(most + plan.slow, plan.processes_for(most), "viewers")
    with tempfile.TemporaryDirectory(prefix="bidding-experiment-") as scratch:
        room = {"broadcast_service": most + plan.slow}
        async with open_platform(asked, Path(scratch), connections=room) as platform:
            session.begin(platform.backend, platform.label)
            click.echo(f"Fan-out at {platform.feed_url}, {plan.rate:g} bids/s for {plan.duration_s} s a step")
            return await fan_out(session, platform, plan)
