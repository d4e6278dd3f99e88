"""``python -m load_tests``: load, then proof. What ``make load`` runs.

Against the platform that the options or the environment name, else the one that is up here
(``.bidding/run.json``), else a private one that is started for the run and removed afterwards.
"""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import asyncpg
import click
import httpx2 as httpx
import nats.errors
from redis.exceptions import RedisError
from typing_extensions import override

from infrastructure.docker.addresses import compose_aws, compose_urls, compose_variables
from infrastructure.local.commands.options import data_dir_option, http_url, require_no_tokens
from infrastructure.local.errors import StackError
from infrastructure.local.reporting import Reporter
from infrastructure.local.servers.ports import Ports
from infrastructure.local.stack import Stack
from load_tests.durations import whole_seconds
from load_tests.generator.driver import Load, LoadError, Scenario, gateway_client, open_items, run_locust
from load_tests.generator.ledger import Ledger
from load_tests.generator.tally import Progress
from load_tests.proof.settle import Proof, prove
from load_tests.proof.verify import ArchiveProgress, Sources, open_sources
from load_tests.run import cloudwatch
from load_tests.run.report import RunReport, as_json, progress_line, render, run_checks, write_json
from load_tests.run.stopping import run_until_stopped
from load_tests.run.tag import run_tag
from load_tests.targets import CROWD_ENV, SETTINGS, TargetError, Targets, choose_targets, running_targets

EXIT_NOT_PROVED = 1
EXIT_NO_RUN = 2
EXIT_INTERRUPTED = 130

_ITEMS_MAX = 1_000
_SHOW_EVERY_S = 2.0


@dataclass(frozen=True, slots=True)
class _Run:
    load: Load
    targets: Targets | None
    report_path: Path
    archive_stall_s: float
    unknown_allowed: bool
    cloudwatch_namespace: str
    cloudwatch_wait_s: float


@click.command("load", context_settings={"show_default": True})
@click.option("--users", type=click.IntRange(2, 10_000), default=100, help="Bidders at the same time.")
@click.option("--duration", "run_s", callback=whole_seconds, default="30s", help="How long they bid, as 30s or 5m.")
@click.option("--items", "item_count", type=click.IntRange(1, _ITEMS_MAX), default=1, help="Items they compete for.")
@click.option("--bid-weight", type=click.IntRange(1, 1_000), default=9, help="Weight of bidding.")
@click.option("--look-weight", type=click.IntRange(0, 1_000), default=1, help="Weight of only looking at the item.")
@click.option("--spread", type=click.IntRange(0, 10**9), default=100, help="Largest step above the minimum, in cents.")
@click.option("--think-ms", type=click.IntRange(0, 60_000), default=0, help="Pause of a bidder between two actions.")
@click.option("--rate", type=click.FloatRange(0), default=0.0, help="Open run: bids/s from all; 0: a closed one.")
@click.option("--processes", type=click.IntRange(1, 64), default=1, help="Processes that share the bidders.")
@click.option(
    "--scenario", type=click.Choice(["contended", "reading", "mixed"]), default="contended", help="What bidders do."
)
@click.option("--gateway-url", envvar="GATEWAY_URL", show_envvar=True, callback=http_url, help="Platform under test.")
@click.option("--redis-url", envvar="REDIS_URL", show_envvar=True, help="Its Redis, for the proof.")
@click.option("--nats-url", envvar="NATS_URL", show_envvar=True, help="Its NATS, for the proof.")
@click.option("--postgres-url", envvar="POSTGRES_URL", show_envvar=True, help="Its PostgreSQL, for the proof.")
@click.option("--compose", is_flag=True, help="All addresses of docker-compose.localstack.yml on this machine.")
@data_dir_option
@click.option("--report", "report_path", type=click.Path(path_type=Path, dir_okay=False), help="File for the report.")
@click.option("--archive-stall", type=click.FloatRange(1, 3_600), default=30.0, help="Seconds the archive may stall.")
@click.option(
    "--allow-unknown", is_flag=True, help="Do not count requests without an answer as failures (runs with faults)."
)
@click.option(
    "--cloudwatch-namespace",
    envvar="METRICS_CLOUDWATCH_NAMESPACE",
    show_envvar=True,
    default="",
    help="Show the metrics of this CloudWatch namespace.",
)
@click.option("--cloudwatch-wait", type=click.FloatRange(0, 600), default=75.0, help="Seconds to wait for it.")
def main(
    users: int,
    run_s: int,
    item_count: int,
    bid_weight: int,
    look_weight: int,
    spread: int,
    think_ms: int,
    rate: float,
    processes: int,
    scenario: Scenario,
    gateway_url: str | None,
    redis_url: str | None,
    nats_url: str | None,
    postgres_url: str | None,
    compose: bool,
    data_dir: Path,
    report_path: Path | None,
    archive_stall: float,
    allow_unknown: bool,
    cloudwatch_namespace: str,
    cloudwatch_wait: float,
) -> None:
    """Many bidders on few items, then the proof that nothing was lost, doubled or reordered.

    Exit status: 0 proved, 1 not proved, 2 no run was possible.
    """
    # The drivers' notices about connections that open and close are of no interest here.
    logging.basicConfig(level=logging.ERROR, format="%(name)s: %(message)s")
    require_no_tokens("Load runs")
    tag = run_tag()
    load = Load(
        users=users,
        run_s=run_s,
        item_ids=[f"load-{tag}-{number}" for number in range(1, item_count + 1)],
        tag=tag,
        bid_weight=bid_weight,
        look_weight=look_weight,
        spread_minor=spread,
        think_ms=think_ms,
        rate=rate,
        processes=processes,
        scenario=scenario,
    )
    given = dict(zip(SETTINGS, (gateway_url, redis_url, nats_url, postgres_url), strict=True))
    if compose:
        variables = compose_variables(os.environ)
        # All four addresses, whatever the shell has: the stores of another platform would prove nothing.
        given = dict(compose_urls(variables))
        cloudwatch_namespace = variables["METRICS_CLOUDWATCH_NAMESPACE"]
        os.environ.update(compose_aws(variables))
    try:
        run = _Run(
            load=load,
            targets=choose_targets(given, running_targets(data_dir)),
            report_path=report_path or data_dir / "reports" / f"load-{tag}.json",
            archive_stall_s=archive_stall,
            unknown_allowed=allow_unknown,
            cloudwatch_namespace=cloudwatch_namespace,
            cloudwatch_wait_s=cloudwatch_wait,
        )
        proved = run_until_stopped(_load_and_prove(run))
    except KeyboardInterrupt:
        click.echo("Stopped before the proof.", err=True)
        sys.exit(EXIT_INTERRUPTED)
    except (TargetError, LoadError, StackError) as error:
        click.echo(f"No load run: {error}", err=True)
        sys.exit(EXIT_NO_RUN)
    except (OSError, RedisError, asyncpg.PostgresError, asyncpg.InterfaceError, nats.errors.Error) as error:
        click.echo(f"No proof, a store cannot be read: {type(error).__name__}: {error}", err=True)
        sys.exit(EXIT_NO_RUN)
    sys.exit(0 if proved else EXIT_NOT_PROVED)


async def _load_and_prove(run: _Run) -> bool:
    started_at = datetime.now(UTC)
    with tempfile.TemporaryDirectory(prefix="bidding-load-") as scratch:
        async with _platform(run, Path(scratch)) as targets, gateway_client(targets.gateway_url) as client:
            await open_items(client, run.load.item_ids, run.load.tag)
            items = f"{len(run.load.item_ids):,} item{'s' if len(run.load.item_ids) > 1 else ''}"
            click.echo(f"{run.load.users:,} bidders on {items} for {run.load.run_s} s at {targets.gateway_url}")
            tables = run.report_path.with_suffix("")
            ledger = await run_locust(targets.gateway_url, run.load, Path(scratch), _show_load(), tables=tables)
            async with open_sources(
                redis_url=targets.redis_url, nats_url=targets.nats_url, postgres_url=targets.postgres_url
            ) as sources:
                proof = await _prove(run, ledger, client, sources)
            figures = await _figures(run, started_at, ledger)
    report = RunReport(
        load=run.load,
        gateway_url=targets.gateway_url,
        started_at=started_at.isoformat(timespec="seconds"),
        ledger=ledger,
        resolutions=proof.resolutions,
        verifications=proof.verifications,
        checks=run_checks(ledger, unknown_allowed=run.unknown_allowed),
        figures=figures,
    )
    click.echo("\n" + render(report))
    try:
        write_json(run.report_path, as_json(report))
    except OSError as error:
        # The proof holds without the file.
        click.echo(f"The report was not written: {error}", err=True)
    else:
        click.echo(f"Report: {run.report_path}")
    click.echo(f"Locust's own: {tables}.html, {tables}_stats.csv")
    return report.ok


@asynccontextmanager
async def _platform(run: _Run, scratch: Path) -> AsyncIterator[Targets]:
    """The platform under test: named, found, or started for this run alone."""
    if run.targets is not None:
        yield run.targets
        return
    click.echo("No platform is up here: starting a private one for this run.")
    async with Stack(scratch / "stack", ports=Ports.free(), reporter=_StackProgress(), env=CROWD_ENV) as stack:
        yield Targets(
            gateway_url=stack.urls.gateway_url,
            redis_url=stack.urls.redis_url,
            nats_url=stack.urls.nats_url,
            postgres_url=stack.urls.postgres_url,
        )


class _StackProgress(Reporter):
    """One line per part of the private platform that is ready."""

    @override
    def step_done(self, label: str, seconds: float, note: str) -> None:
        click.echo(f"  {label} {seconds:.1f} s")


async def _prove(run: _Run, ledger: Ledger, client: httpx.AsyncClient, sources: Sources) -> Proof:
    click.echo("Waiting for the archive …")
    proof = await prove(
        client,
        sources,
        run.load.item_ids,
        ledger,
        stall_timeout_s=run.archive_stall_s,
        progress=_show_archive(),
    )
    archive = proof.archive
    if archive.caught_up:
        click.echo(f"  {archive.archived:,} events are archived")
    else:
        extent = f"{archive.archived:,} of {archive.expected:,} events are archived"
        click.echo(f"  given up after {archive.waited_s:.0f} s: {extent}")
    return proof


async def _figures(run: _Run, started_at: datetime, ledger: Ledger) -> cloudwatch.Figures | None:
    if not run.cloudwatch_namespace:
        return None
    click.echo("Asking CloudWatch …")
    seen = {cloudwatch.DECIDED: ledger.bids, cloudwatch.ARCHIVED: ledger.accepted}
    return await cloudwatch.ask(run.cloudwatch_namespace, started_at, seen, wait_s=run.cloudwatch_wait_s)


def _show_load() -> Callable[[Progress], None]:
    shown = 0.0

    def show(line: Progress) -> None:
        nonlocal shown
        if line.seconds - shown >= _SHOW_EVERY_S - 0.5:
            shown = line.seconds
            click.echo(progress_line(line))

    return show


def _show_archive() -> Callable[[ArchiveProgress], None]:
    shown = time.monotonic()

    def show(look: ArchiveProgress) -> None:
        nonlocal shown
        if not look.caught_up and time.monotonic() - shown >= _SHOW_EVERY_S:
            shown = time.monotonic()
            click.echo(f"  {look.waited_s:4.0f} s  {look.archived:,} of {look.expected:,} events are archived")

    return show


if __name__ == "__main__":
    main()
