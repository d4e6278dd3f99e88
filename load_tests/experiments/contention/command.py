"""The command: options, what is refused, and the run."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import click

from infrastructure.local.commands.helping import examples
from infrastructure.local.commands.options import Number
from load_tests.durations import whole_seconds
from load_tests.experiments.common.guard import Refused, require_descriptors, require_ports
from load_tests.experiments.common.options import asked_from, counts, out_from, place_options
from load_tests.experiments.common.platform import Asked, open_platform
from load_tests.experiments.common.session import Session, conduct, settings_of
from load_tests.experiments.contention.ladder import Generator, Ladder, Strategy, climb
from load_tests.generator.driver import USERS_PER_PROCESS_MAX


@click.command(
    context_settings={"show_default": True},
    epilog=examples(
        "bidding experiment contention --private --users 100,500 --duration 10s --out ladder.json",
        "bidding experiment contention --users 100,500,1000 --out ladder.json",
    ),
)
@click.option(
    "--users", callback=counts(1, 100_000), default="100,500,1000,2000,10000", help="Users of each step, rising."
)
@click.option(
    "--duration", "duration_s", callback=whole_seconds, default="30s", help="Time of a step with all users active."
)
@click.option("--items", type=click.IntRange(1, 1_000), default=1, help="Items that they compete for.")
@click.option("--rate", type=Number(0), default=0.0, help="Open steps: actions/s of all users; 0: closed.")
@click.option("--processes", type=click.IntRange(1, 64), default=2, help="Least number of load processes.")
@click.option(
    "--strategy",
    type=click.Choice(["lua", "optimistic", "plain-lua"]),
    default="lua",
    help="Who decides: this platform, or a small gateway with WATCH/MULTI, or with one script per bid.",
)
@click.option(
    "--generator",
    type=click.Choice(["locust", "plain"]),
    default="locust",
    help="Who bids: Locust's users, or plain connections, which cost a fraction of their CPU.",
)
@click.option(
    "--ecs-cluster",
    default="",
    help="On AWS: the cluster to watch with Container Insights; needs steps of two minutes or more.",
)
@place_options
def contention(
    users: tuple[int, ...],
    duration_s: int,
    items: int,
    rate: float,
    processes: int,
    strategy: Strategy,
    generator: Generator,
    ecs_cluster: str,
    **options: Any,
) -> None:
    """The ladder: more and more users on one item; rate, response times, failures, CPU, what limited it, and the proof.

    Without --target: the platform that is up here, else a private one.
    """
    ladder = Ladder(users, duration_s, items, rate, processes, strategy, generator=generator, ecs_cluster=ecs_cluster)
    session = Session("contention", out_from(options, "contention"), settings_of(ladder))
    conduct(session, lambda it: _run(it, ladder, asked_from(options)))


async def _run(session: Session, ladder: Ladder, asked: Asked) -> bool:
    if ladder.ecs_cluster and not asked.aws:
        raise Refused("--ecs-cluster looks at services on AWS: --aws and --target name the platform there")
    most = max(ladder.users)
    require_ports(most)
    require_descriptors(most, max(ladder.processes, -(-most // USERS_PER_PROCESS_MAX)), "users")
    with tempfile.TemporaryDirectory(prefix="bidding-experiment-") as scratch:
        async with open_platform(asked, Path(scratch), connections={"api_gateway": most}) as platform:
            session.begin(platform.backend, platform.label)
            click.echo(f"Contention at {platform.gateway_url}, {ladder.duration_s} s a step")
            return await climb(session, platform, ladder)
