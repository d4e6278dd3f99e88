"""``make bench``: all benchmarks in one run."""

from __future__ import annotations

import platform
from collections.abc import Callable
from pathlib import Path

import click

from bench.acks import bench_acks
from bench.archive import bench_archive
from bench.broadcasters import bench_broadcasters
from bench.cache.gets import bench_cache
from bench.cache.hits import bench_cache_hits
from bench.cache.service import bench_cache_service
from bench.catalogue import bench_catalogue
from bench.chart import page
from bench.feed import SOAK_EVENTS, bench_feed
from bench.gateway import bench_gateway
from bench.growth import bench_growth
from bench.overload.gateway import bench_overload
from bench.results import BenchRun, now
from bench.viewers import bench_viewers

PARTS = (
    "gateway",
    "overload",
    "growth",
    "viewers",
    "broadcasters",
    "ack",
    "archive",
    "catalogue",
    "feed",
    "cache",
    "cache-hits",
    "cache-service",
)


@click.command()
@click.option("--rounds", default=5, show_default=True, help="Interleaved rounds; medians are over these.")
@click.option(
    "--seconds", default=5.0, show_default=True, help="Measured seconds per run, after one second of warm-up."
)
@click.option("--connections", default=128, show_default=True, help="Bidders, each with one request in flight.")
@click.option("--only", default="", help="Run only our contenders whose name contains this (yardsticks always run).")
@click.option("--part", type=click.Choice(["all", *PARTS]), default="all", show_default=True, help="What to run.")
@click.option(
    "--events", default=200_000, show_default=True, type=click.IntRange(1_000), help="Bids of a round of the archive."
)
@click.option(
    "--per-message", default=16, show_default=True, type=click.IntRange(1, 256), help="Bids of one outbox entry."
)
@click.option("--viewers", default=1_000, show_default=True, help="Viewers of the feed's rounds; 0 leaves them out.")
@click.option(
    "--crowd", default=10_000, show_default=True, help="Viewers at once on one broadcaster, at most; 0 for none."
)
@click.option(
    "--soak", default=SOAK_EVENTS, show_default=True, help="Events of the feed's soak, a busy day; 0 leaves it out."
)
@click.option(
    "--items", default=1_000_000, show_default=True, type=click.IntRange(1), help="Most items in Redis, of the growth."
)
@click.option("--bids", default=1_000_000, show_default=True, help="Most bids on one item, of the growth.")
@click.option(
    "--rows",
    default=1_000_000,
    show_default=True,
    type=click.IntRange(1_000),
    help="Rows of the hit rates and of the cache service.",
)
@click.option(
    "--draws", default=3_000_000, show_default=True, type=click.IntRange(1_000), help="Gets of the hit rates."
)
@click.option(
    "--reads",
    default=300_000,
    show_default=True,
    type=click.IntRange(1_000),
    help="Gets of each hit rate of the cache service.",
)
@click.option(
    "--json",
    "json_path",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write all results to this file, with machine, versions, commit and times; after each part, too.",
)
@click.option(
    "--chart",
    "chart_path",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the ratios and curves to this file: a page that needs nothing else.",
)
@click.pass_context
def main(
    context: click.Context,
    rounds: int,
    seconds: float,
    connections: int,
    only: str,
    part: str,
    events: int,
    per_message: int,
    viewers: int,
    crowd: int,
    soak: int,
    items: int,
    bids: int,
    rows: int,
    draws: int,
    reads: int,
    json_path: Path | None,
    chart_path: Path | None,
) -> None:
    """Accepted bids/s through HTTP against a bare ASGI echo and an idiomatic FastAPI gateway, on one core each.

    Then bids that come at a pace of their own, at 0.8 of what the gateway can take and at twice as much; bids
    where many items and bids are there already, or many look on, or several broadcasters run. Then what the
    levels of acknowledgement cost, and events/s from JetStream into PostgreSQL between what one gateway
    accepts and a plain COPY of the same rows. Then the live feed: from a decided bid to a viewer's hands, beside plain
    transports, with slow viewers, with a crowd, and for a day's worth of events. Last the read cache: gets/s beside
    PostgreSQL and a plain dict, hit rates for the same memory, and the same of real nodes before a full PostgreSQL.
    """
    click.echo(
        f"Python {platform.python_version()}, {platform.machine()}, {connections} connections, {seconds:g} s per run"
    )
    for path in (json_path, chart_path):
        if path is not None and not path.absolute().parent.is_dir():
            raise click.ClickException(f"there is no folder {path.absolute().parent} for {path.name}: make it first")
    # The stalled viewers need a while until they are noticed.
    of_feed = {"viewers": viewers, "crowd": crowd, "soak_events": soak}
    of_archive = {"rounds": rounds, "events": events, "per_message": per_message}
    parts: dict[str, Callable[[], object]] = {
        "gateway": lambda: bench_gateway(rounds=rounds, seconds=seconds, connections=connections, only=only),
        "overload": lambda: bench_overload(rounds=rounds, seconds=seconds, only=only),
        "growth": lambda: bench_growth(seconds=seconds, items_max=items, bids_max=bids),
        "viewers": lambda: bench_viewers(rounds=rounds, seconds=seconds, viewers_max=crowd),
        "broadcasters": lambda: bench_broadcasters(rounds=rounds, seconds=seconds),
        "ack": lambda: bench_acks(rounds=rounds, seconds=seconds, connections=connections),
        "archive": lambda: bench_archive(**of_archive, connections=connections, seconds=seconds),
        "catalogue": lambda: bench_catalogue(items=100_000, bids=1_000_000),
        "feed": lambda: bench_feed(**of_feed, rounds=rounds, seconds=max(seconds, 8.0)),
        "cache": lambda: bench_cache(rounds=rounds, seconds=seconds, only=only),
        "cache-hits": lambda: bench_cache_hits(rows=rows, draws=draws),
        "cache-service": lambda: bench_cache_service(rows=rows, reads=reads),
    }
    run = BenchRun({name: value for name, value in context.params.items() if "_path" not in name}, json_path)
    try:
        run.begin()
        for name in PARTS if part == "all" else (part,):
            began = now()
            run.add(name, began, parts[name]())
        run.end()
    finally:
        if chart_path is not None:
            chart_path.write_text(page(run.told), encoding="utf-8")


if __name__ == "__main__":
    main()
