"""The command: options, what is refused, and the run."""

from __future__ import annotations

import statistics
from pathlib import Path

import click

from infrastructure.local.commands.helping import examples
from infrastructure.local.commands.options import data_dir_option, http_url
from load_tests.experiments.common.guard import Refused, ask_before_changing, ask_before_leaving
from load_tests.experiments.common.options import out_from
from load_tests.experiments.common.progress import done, step_bar
from load_tests.experiments.common.results import Backend, EnvironmentTest
from load_tests.experiments.common.session import Session, conduct
from load_tests.experiments.environment.aws import AwsBackend
from load_tests.experiments.environment.compose import ComposeBackend
from load_tests.experiments.environment.embedded import EmbeddedBackend
from load_tests.experiments.environment.emulator import EmulatorBackend
from load_tests.experiments.environment.properties import PROPERTIES, CannotDo, Deployment, EnvironmentBackend

_EXPECTED_S = 15.0


@click.command(
    context_settings={"show_default": True},
    epilog=examples("bidding experiment environment --backend embedded --out environment.json"),
)
@click.option("--backend", type=click.Choice(["embedded", "compose", "emulator", "aws"]), required=True)
@click.option("--repeat", type=click.IntRange(1, 50), default=5, help="How often each property is measured.")
@click.option(
    "--emulator-url", callback=http_url, help="A running emulator, such as LocalStack. [moto, in this process]"
)
@click.option("--target", callback=http_url, help="On AWS: the gateway's address.")
@click.option("--ecs-cluster", "cluster", default="bidding-dev", help="On AWS: the cluster.")
@click.option("--ecs-service", "service", default="gateway", help="On AWS: the service to redeploy.")
@click.option("--yes", is_flag=True, help="On AWS: change the service there without asking.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), help="File for the result (JSON). [a new one]")
@data_dir_option
def environment(
    backend: Backend,
    repeat: int,
    emulator_url: str | None,
    target: str | None,
    cluster: str,
    service: str,
    yes: bool,
    out: Path | None,
    data_dir: Path,
) -> None:
    """Eight properties of an environment, each several times: deployment, scaling, tasks, discovery, cost, network,
    logs and metrics. What a backend cannot do is said, not simulated.
    """
    settings = {"backend": backend, "repeat": repeat}
    session = Session("environment", out_from({"out": out, "data_dir": data_dir}, f"environment-{backend}"), settings)

    async def run(it: Session) -> bool:
        chosen: EnvironmentBackend
        if backend == "aws":
            what = f"deploys {service} in the ECS cluster {cluster} anew {repeat} times, and runs up to 5 tasks of it"
            ask_before_changing(what, yes=yes)
            ask_before_leaving([target] if target else [], yes=yes)
            chosen = AwsBackend(cluster=cluster, service=service, gateway_url=target or "")
        elif backend == "emulator":
            ask_before_leaving([emulator_url] if emulator_url else [], yes=yes)
            chosen = EmulatorBackend(emulator_url or "")
        else:
            chosen = ComposeBackend() if backend == "compose" else EmbeddedBackend()
        return await _measure(it, chosen, backend, repeat)

    conduct(session, run)


async def _measure(session: Session, backend: EnvironmentBackend, name: Backend, repeat: int) -> bool:
    tests = {each.name: EnvironmentTest(each.name, each.unit) for each in PROPERTIES}
    for number in range(1, repeat + 1):
        async with step_bar(f"{name}, {number} of {repeat}", _EXPECTED_S), backend.deployed() as deployment:
            if number == 1:
                session.begin(name, backend.label)
                session.result.notes += backend.notes
                session.result.tests = list(tests.values())
            for each in PROPERTIES:
                await _measure_one(deployment, each.method, tests[each.name])
        session.save()
        done(f"repetition {number} of {repeat}")
    for test in tests.values():
        done(line_of(test))
    return True


async def _measure_one(deployment: Deployment, method: str, test: EnvironmentTest) -> None:
    try:
        test.values.append(round(await getattr(deployment, method)(), 3))
    except CannotDo as cannot:
        test.note = str(cannot)
    except Exception as error:
        # boto3 makes its exceptions at run time; they have no base that could be named without it.
        if type(error).__module__.partition(".")[0] != "botocore":
            raise
        raise Refused(f"{test.name}: {type(error).__name__}: {error}") from error


def line_of(test: EnvironmentTest) -> str:
    """A property as a line for people."""
    if not test.values:
        return f"{test.name:22} {test.note}"
    median = statistics.median(test.values)
    return f"{test.name:22} {median:,.2f} {test.unit} ({min(test.values):,.2f} to {max(test.values):,.2f})"
