"""The command: options, what is refused, and the run."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import click

from infrastructure.local.commands.helping import examples
from load_tests.durations import whole_seconds
from load_tests.experiments.common.guard import ask_before_changing
from load_tests.experiments.common.options import asked_from, out_from, place_options
from load_tests.experiments.common.platform import Asked, open_platform
from load_tests.experiments.common.session import Session, conduct, settings_of
from load_tests.experiments.resilience.breakers import VICTIMS, ecs_service_of
from load_tests.experiments.resilience.phases import Plan, endure

_CACHE_NODES = 3


@click.command(
    context_settings={"show_default": True},
    epilog=examples("bidding experiment resilience --private --kill nats --out kill-nats.json"),
)
@click.option("--kill", type=click.Choice(list(VICTIMS)), required=True, help="The part that fails.")
@click.option("--phase", "phase_s", callback=whole_seconds, default="10s", help="Length of each of the three phases.")
@click.option("--bidders", type=click.IntRange(2, 500), default=20, help="People who bid all the time.")
@click.option("--viewers", type=click.IntRange(1, 100), default=3, help="People who watch all the time.")
@click.option("--ecs-cluster", "cluster", default="", help="On AWS: the cluster whose service loses its tasks.")
@place_options
def resilience(kill: str, phase_s: int, bidders: int, viewers: int, cluster: str, **options: Any) -> None:
    """One part is killed while people bid, watch and read: what they notice, when all works again, and the proof.

    Of a private stack the part stays down for a whole phase; that of `bidding up` is restarted by its supervisor at
    once.
    """
    plan = Plan(kill, phase_s, bidders, viewers, cluster=cluster)
    session = Session("resilience", out_from(options, "resilience"), settings_of(plan))
    conduct(session, lambda it: _run(it, plan, asked_from(options)))


async def _run(session: Session, plan: Plan, asked: Asked) -> bool:
    if plan.cluster:
        service = ecs_service_of(plan.kill)
        ask_before_changing(f"takes all tasks of {service} in the ECS cluster {plan.cluster} away", yes=asked.yes)
    nodes = _CACHE_NODES if plan.kill == "cache" else 0
    with tempfile.TemporaryDirectory(prefix="bidding-experiment-") as scratch:
        async with open_platform(asked, Path(scratch), cache_nodes=nodes) as platform:
            session.begin(platform.backend, platform.label)
            click.echo(f"Resilience at {platform.gateway_url}: {plan.kill} fails")
            return await endure(session, platform, plan)
