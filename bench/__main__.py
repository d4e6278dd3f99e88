"""``make bench``: all benchmarks in one run."""

from __future__ import annotations

import platform

import click

from bench.archive import bench_archive
from bench.gateway import bench_gateway


@click.command()
@click.option("--rounds", default=5, show_default=True, help="Interleaved rounds; medians are over these.")
@click.option(
    "--seconds", default=5.0, show_default=True, help="Measured seconds per run, after one second of warm-up."
)
@click.option("--connections", default=128, show_default=True, help="Bidders, each with one request in flight.")
@click.option("--only", default="", help="Run only our contenders whose name contains this (yardsticks always run).")
@click.option(
    "--part", type=click.Choice(["all", "gateway", "archive"]), default="all", show_default=True, help="What to run."
)
@click.option(
    "--events", default=200_000, show_default=True, type=click.IntRange(1_000), help="Bids of a round of the archive."
)
@click.option(
    "--per-message", default=16, show_default=True, type=click.IntRange(1, 256), help="Bids of one outbox entry."
)
def main(rounds: int, seconds: float, connections: int, only: str, part: str, events: int, per_message: int) -> None:
    """Accepted bids/s through HTTP against a bare ASGI echo and an idiomatic FastAPI gateway, on one core each.

    Then events/s from JetStream into PostgreSQL against a plain COPY of the same rows.
    """
    # The archive first: the gateway's part binds this process and its children to some of the cores for good.
    if part != "gateway":
        bench_archive(rounds=rounds, events=events, per_message=per_message)
    if part == "archive":
        return
    click.echo(
        f"Python {platform.python_version()}, {platform.machine()}, {connections} connections, {seconds:g} s per run"
    )
    bench_gateway(rounds=rounds, seconds=seconds, connections=connections, only=only)


if __name__ == "__main__":
    main()
