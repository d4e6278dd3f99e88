"""``python -m load_tests``: load, then proof. What ``make load`` runs.

Against the platform that the options or the environment name, else the one that is up here
(``.bidding/run.json``), else a private one that is started for the run and removed afterwards.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import click
import nats.errors
from redis.exceptions import RedisError
from typing_extensions import override

from infrastructure.docker.addresses import compose_aws, compose_urls, compose_variables
from infrastructure.local.commands.options import data_dir_option, http_url
from infrastructure.local.errors import StackError
from infrastructure.local.reporting import Reporter
from infrastructure.local.servers.ports import Ports
from infrastructure.local.stack import Stack
from load_tests import cloudwatch
from load_tests.driver import (
    Load,
    LoadError,
    Resolution,
    client_view,
    gateway_client,
    open_items,
    resolve_unknown,
    run_locust,
)
from load_tests.report import RunReport, as_json, progress_line, render, run_checks, write_json
from load_tests.tally import Ledger, Progress
from load_tests.targets import SETTINGS, TargetError, Targets, choose_targets, running_targets
from load_tests.verify import (
    ArchiveProgress,
    Sources,
    Verification,
    open_sources,
    verify_items,
    wait_until_archived,
)

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


def _seconds(ctx: click.Context, param: click.Parameter, value: str) -> int:
    """``30s``, ``5m``, ``1h`` or plain seconds, as whole seconds from 1 to 86,400."""
    text = value.strip().lower()
    factor = {"s": 1, "m": 60, "h": 3600}.get(text[-1:], 0)
    digits = text[:-1] if factor else text
    seconds = int(digits) * (factor or 1) if digits.isascii() and digits.isdigit() else 0
    if not 1 <= seconds <= 86_400:
        raise click.BadParameter(f"{value!r} is not a duration from 1s to 24h, such as 30s or 5m", ctx, param)
    return seconds


@click.command("load", context_settings={"show_default": True})
@click.option("--users", type=click.IntRange(2, 10_000), default=100, help="Bidders at the same time.")
@click.option("--duration", "run_s", callback=_seconds, default="30s", help="How long they bid, such as 30s or 5m.")
@click.option("--items", "item_count", type=click.IntRange(1, _ITEMS_MAX), default=1, help="Items they compete for.")
@click.option("--bid-weight", type=click.IntRange(1, 1_000), default=9, help="Weight of bidding.")
@click.option("--look-weight", type=click.IntRange(0, 1_000), default=1, help="Weight of only looking at the item.")
@click.option("--spread", type=click.IntRange(0, 10**9), default=100, help="Largest step above the minimum, in cents.")
@click.option("--think-ms", type=click.IntRange(0, 60_000), default=0, help="Pause of a bidder between two actions.")
@click.option("--gateway-url", envvar="GATEWAY_URL", show_envvar=True, callback=http_url, help="Platform under test.")
@click.option("--redis-url", envvar="REDIS_URL", show_envvar=True, help="Its Redis, for the proof.")
@click.option("--nats-url", envvar="NATS_URL", show_envvar=True, help="Its NATS, for the proof.")
@click.option("--postgres-url", envvar="POSTGRES_URL", show_envvar=True, help="Its PostgreSQL, for the proof.")
@click.option("--compose", is_flag=True, help="All addresses of docker-compose.localstack.yml on this machine.")
@data_dir_option
@click.option("--report", "report_path", type=click.Path(path_type=Path, dir_okay=False), help="File for the report.")
@click.option("--archive-stall", type=click.FloatRange(1, 3_600), default=30.0, help="Seconds the archive may stall.")
@click.option("--allow-unknown", is_flag=True, help="Requests without an answer are no failure (runs with faults).")
@click.option(
    "--cloudwatch-namespace",
    envvar="METRICS_CLOUDWATCH_NAMESPACE",
    show_envvar=True,
    default="",
    help="Show what CloudWatch was told under this namespace.",
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


def run_tag() -> str:
    """A name for this run that no earlier run had: the second in UTC, and the microsecond."""
    return datetime.now(UTC).strftime("%Y%m%d-%H%M%S-%f")


def run_until_stopped(work: Coroutine[Any, Any, bool]) -> bool:
    """``asyncio.run`` that also turns SIGTERM into an orderly end, so that nothing started here is left
    behind.

    Raises:
        KeyboardInterrupt: Ctrl-C or SIGTERM.
    """

    async def guarded() -> bool:
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        return await work

    try:
        return asyncio.run(guarded())
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None


async def _load_and_prove(run: _Run) -> bool:
    started_at = datetime.now(UTC)
    with tempfile.TemporaryDirectory(prefix="bidding-load-") as scratch:
        async with _platform(run, Path(scratch)) as targets, gateway_client(targets.gateway_url) as client:
            await open_items(client, run.load.item_ids, run.load.tag)
            items = f"{len(run.load.item_ids):,} item{'s' if len(run.load.item_ids) > 1 else ''}"
            click.echo(f"{run.load.users:,} bidders on {items} for {run.load.run_s} s at {targets.gateway_url}")
            ledger = await run_locust(targets.gateway_url, run.load, Path(scratch), _show_load())
            async with open_sources(
                redis_url=targets.redis_url, nats_url=targets.nats_url, postgres_url=targets.postgres_url
            ) as sources:
                resolutions, verifications = await _prove(run, ledger, client, sources)
            figures = await _figures(run, started_at, ledger)
    report = RunReport(
        load=run.load,
        gateway_url=targets.gateway_url,
        started_at=started_at.isoformat(timespec="seconds"),
        ledger=ledger,
        resolutions=resolutions,
        verifications=verifications,
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
    return report.ok


@asynccontextmanager
async def _platform(run: _Run, scratch: Path) -> AsyncIterator[Targets]:
    """The platform under test: named, found, or started for this run alone."""
    if run.targets is not None:
        yield run.targets
        return
    click.echo("No platform is up here: starting a private one for this run.")
    async with Stack(scratch / "stack", ports=Ports.free(), reporter=_StackProgress()) as stack:
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


async def _prove(
    run: _Run, ledger: Ledger, client: Any, sources: Sources
) -> tuple[Sequence[Resolution], Sequence[Verification]]:
    """Let the platform come to rest, settle the unknown bids, then compare."""
    item_ids = run.load.item_ids
    click.echo("Waiting for the archive …")
    archive = await wait_until_archived(
        sources, item_ids, stall_timeout_s=run.archive_stall_s, progress=_show_archive()
    )
    resolutions = [await resolve_unknown(client, item_id, ledger.items[item_id].unknown) for item_id in item_ids]
    if any(resolution.accepted for resolution in resolutions):
        archive = await wait_until_archived(sources, item_ids, stall_timeout_s=run.archive_stall_s)
    if archive.caught_up:
        click.echo(f"  {archive.archived:,} events are archived")
    else:
        extent = f"{archive.archived:,} of {archive.expected:,} events are archived"
        click.echo(f"  given up after {archive.waited_s:.0f} s: {extent}")
    views = {
        item_id: client_view(ledger.items[item_id], resolution)
        for item_id, resolution in zip(item_ids, resolutions, strict=True)
    }
    return resolutions, await verify_items(views, sources)


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
