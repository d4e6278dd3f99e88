"""`bidding deploy`: a new version onto AWS."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import click

from infrastructure.deploy import image as images
from infrastructure.deploy.alarms import Alarms
from infrastructure.deploy.ecs import Client, Cluster
from infrastructure.deploy.errors import DeployError
from infrastructure.deploy.notes import HEAD
from infrastructure.deploy.release import Deployment, Release, Times
from infrastructure.deploy.smoke import checked_url
from infrastructure.deploy_check.aws import Unanswered, open_clients
from infrastructure.local.commands.failing import Failure, NobodyToAsk
from infrastructure.local.commands.helping import examples
from infrastructure.local.commands.options import Number
from infrastructure.local.terminal import TerminalReporter
from shared.aws.clients import AwsError

VERIFY_S = 180.0
"""How long a new version may fail to answer: the balancer still knows tasks that are gone."""

_AGAIN = "What was begun is noted on the services: the same command goes on, and --roll-back goes back."


@dataclass(frozen=True, slots=True)
class _Wanted:
    """The options that say what to deploy where."""

    environment: str
    project: str
    tag: str | None
    nats_tag: str | None
    url: str | None
    architecture: str | None
    build: bool


@click.command(
    "deploy",
    context_settings={"show_default": True},
    short_help="Deploy a new version to AWS.",
    epilog=examples(
        "bidding deploy --env dev --dry-run",
        "bidding deploy --env prod --tag 3f2a1bc --no-build --yes",
        "bidding deploy --env prod --roll-back",
        then="Exit codes: 0 it runs, 1 it failed (nothing changed, or rolled back), 2 AWS could not be asked.",
    ),
)
@click.option("--env", "environment", type=click.Choice(["dev", "prod"]), default="dev")
@click.option("--project", default="bidding", help="The project in Terraform's variables.")
@click.option("--tag", help="Tag of the image; by default the checked-out commit.")
@click.option("--nats-tag", help="Tag of NATS' image; by default NATS keeps its present image.")
@click.option("--url", help="Address to verify; by default the domain in the gateway's settings.")
@click.option(
    "--architecture",
    type=click.Choice([*images.PLATFORMS]),
    help="Architecture of the image; by default that of the tasks.",
)
@click.option("--no-build", is_flag=True, help="Do not build; the registry must have the image.")
@click.option(
    "--region", envvar="AWS_REGION", show_envvar=True, help="AWS region; by default that of boto3's settings."
)
@click.option("--watch", "watch_s", type=Number(0, 3_600), default=180.0, help="Seconds to watch alarms for.")
@click.option(
    "--within", "service_s", type=Number(1, 7_200), default=1_200.0, help="Most seconds for the update of a service."
)
@click.option("--look-every", "looks_every_s", type=Number(0.05, 60), default=5.0, help="Seconds between checks.")
@click.option("--dry-run", is_flag=True, help="Print each step; change nothing.")
@click.option("--roll-back", is_flag=True, help="Roll back a deployment that was not finished.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def deploy(
    environment: str,
    project: str,
    tag: str | None,
    nats_tag: str | None,
    url: str | None,
    architecture: str | None,
    no_build: bool,
    region: str | None,
    watch_s: float,
    service_s: float,
    looks_every_s: float,
    dry_run: bool,
    roll_back: bool,
    yes: bool,
) -> None:
    """Build, push, migrate, update the services one after the other, verify; roll back if that fails.

    Terraform creates the environment, this command deploys versions. A failed migration stops it before it changes any
    service. The same command continues an interrupted run.
    """
    wanted = _Wanted(environment, project, tag, nats_tag, url, architecture, build=not no_build)
    times = Times(service_s=service_s, watch_s=watch_s, looks_every_s=looks_every_s, verify_s=VERIFY_S)
    try:
        client = open_clients(region)
        deployment = _deployment(client, wanted, times, resolve=not roll_back)
        if roll_back:
            _go_back(deployment, dry_run=dry_run)
            return
        steps = list(deployment.steps())
        click.echo("\n".join(steps))
        if dry_run:
            return
        if not yes:
            click.confirm(f"Deploy to {environment}?", abort=True)
        deployment.run()
    except (AwsError, Unanswered) as error:
        raise NobodyToAsk(f"{error}\n{_AGAIN}") from error
    except DeployError as error:
        raise Failure(str(error)) from error
    except KeyboardInterrupt:
        click.echo(f"\nStopped. {_AGAIN}", err=True)
        sys.exit(130)
    click.echo("Deployed.")


def _go_back(deployment: Deployment, *, dry_run: bool) -> None:
    touched, begun = deployment.touched(), deployment.unfinished()
    if not touched and begun is None:
        if not dry_run:
            deployment.clean_up()
        click.echo("No deployment is unfinished. An older version is deployed like a new one: --tag.")
        return
    if dry_run:
        steps = [f"{name:<12}back to {former}" for name, former in touched.items()]
        click.echo("\n".join(steps or [f"no service runs {begun} yet: its notes go"]))
        return
    deployment.roll_back()
    click.echo(f"Back: {', '.join(touched) or f'no service ran {begun} yet'}.")


def _deployment(client: Client, wanted: _Wanted, times: Times, *, resolve: bool) -> Deployment:
    """The deployment that the options ask for. With ``resolve`` false it has no image: enough for going back."""
    name = f"{wanted.project}-{wanted.environment}"
    cluster = Cluster(client, name, looks_every_s=times.looks_every_s)
    running = cluster.service(HEAD).revision
    gateway = cluster.main_container(running)
    repository = str(gateway["image"]).rpartition(":")[0]
    tag = (wanted.tag or images.head()) if resolve else ""
    image = f"{repository}:{tag}"
    release = Release(
        name=name,
        tag=tag,
        image=image,
        nats_tag=wanted.nats_tag or "",
        nats_image=f"{repository}-nats:{wanted.nats_tag}" if wanted.nats_tag else "",
        url=checked_url(wanted.url or _public_url(gateway)) if resolve else "",
    )
    build = partial(images.build_and_push, client, image, architecture=_architecture(wanted, cluster, running))
    return Deployment(
        cluster,
        Alarms(client, name),
        release,
        times=times,
        reporter=TerminalReporter(),
        is_pushed=partial(images.is_pushed, client),
        keep=partial(images.keep, client, wanted.environment),
        # An image that --tag names cannot be built from this checkout.
        push=build if wanted.build and wanted.tag is None else None,
    )


def _architecture(wanted: _Wanted, cluster: Cluster, revision: str) -> str:
    """The one of the tasks. Another is refused: tags are never moved, so a wrong image would keep its tag for good."""
    found = cluster.architecture(revision)
    if wanted.architecture not in (None, found):
        raise DeployError(f"the tasks of {wanted.environment} run on {found}: leave --architecture out")
    return found


def _public_url(container: Mapping[str, Any]) -> str:
    settings = {each["name"]: each["value"] for each in container.get("environment", [])}
    feed = str(settings.get("BROADCAST_PUBLIC_URL", ""))
    if not feed:
        raise DeployError("the gateway does not know its own name (BROADCAST_PUBLIC_URL): say it with --url")
    return feed.replace("ws", "http", 1)
