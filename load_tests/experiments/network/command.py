"""The command: options, what is refused, and the run."""

from __future__ import annotations

import tempfile
from pathlib import Path

import click

from infrastructure.local.commands.helping import examples
from infrastructure.local.commands.options import Number, data_dir_option
from load_tests.durations import delay_s, seconds_of, whole_seconds
from load_tests.experiments.common.guard import require_descriptors, require_ports
from load_tests.experiments.common.options import counts, out_from
from load_tests.experiments.common.session import Session, conduct, settings_of
from load_tests.experiments.contention.ladder import Ladder, climb
from load_tests.experiments.network.twin import HOPS, Conditions, twin
from load_tests.generator.driver import USERS_PER_PROCESS_MAX

_DELAY_MAX_S = 10.0


def _hops(ctx: click.Context, param: click.Parameter, values: tuple[str, ...]) -> dict[str, float]:
    delays: dict[str, float] = {}
    for value in values:
        name, _, text = value.partition("=")
        seconds = seconds_of(text)
        if name not in HOPS or seconds is None or not 0 <= seconds <= _DELAY_MAX_S:
            raise click.BadParameter(f"{value!r} is no hop such as client=15ms; hops: {', '.join(HOPS)}", ctx, param)
        delays[name] = seconds
    return delays


@click.command(
    context_settings={"show_default": True},
    epilog=examples("bidding experiment network --delay 15ms --cpu 0.5 --out twin.json"),
)
@click.option("--delay", callback=delay_s, default="15ms", help="Added to a round trip on each hop.")
@click.option("--hop", "hops", multiple=True, callback=_hops, help="Another delay for one hop: redis=1ms.")
@click.option("--cpu", type=Number(0, 64), default=0.5, help="Cores of each component; 0: no quota.")
@click.option("--users", callback=counts(1, 100_000), default="100,500,1000,2000", help="Users of each step, rising.")
@click.option(
    "--duration", "duration_s", callback=whole_seconds, default="30s", help="Time of a step with all users active."
)
@click.option("--rate", type=Number(0), default=0.0, help="Open steps: actions/s of all users; 0: closed.")
@click.option("--processes", type=click.IntRange(1, 64), default=2, help="Least number of load processes.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="File for the result (JSON). [a new one]")
@data_dir_option
def network(
    delay: float,
    hops: dict[str, float],
    cpu: float,
    users: tuple[int, ...],
    duration_s: int,
    rate: float,
    processes: int,
    out: Path | None,
    data_dir: Path,
) -> None:
    """The ladder on a private stack with a delay on every hop and a CPU quota on every part: a twin of a cloud.

    Hops: client to gateway, and services to redis, nats and postgres.
    """
    conditions = Conditions({name: hops.get(name, delay) for name in HOPS}, cpu)
    ladder = Ladder(users, duration_s, rate=rate, processes=processes, quota=cpu)
    settings = settings_of(ladder) | {"delays_s": dict(conditions.delays_s), "cpu": cpu}
    session = Session("network", out_from({"out": out, "data_dir": data_dir}, "network"), settings)
    conduct(session, lambda it: _run(it, ladder, conditions))


async def _run(session: Session, ladder: Ladder, conditions: Conditions) -> bool:
    most = max(ladder.users)
    require_ports(most)
    require_descriptors(most, max(ladder.processes, -(-most // USERS_PER_PROCESS_MAX)), "users")
    with tempfile.TemporaryDirectory(prefix="bidding-experiment-") as scratch:
        async with twin(conditions, Path(scratch)) as (place, how):
            session.begin(place.backend, place.label)
            session.result.settings["quota_by"] = how
            click.echo(f"Twin at {place.gateway_url}: quota by {how}")
            return await climb(session, place, ladder)
