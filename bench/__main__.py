"""``make bench``: all benchmarks in one run."""

from __future__ import annotations

import platform

import click

from bench.gateway import bench_gateway


@click.command()
@click.option("--rounds", default=5, show_default=True, help="Interleaved rounds; medians are over these.")
@click.option(
    "--seconds", default=5.0, show_default=True, help="Measured seconds per run, after one second of warm-up."
)
@click.option("--connections", default=128, show_default=True, help="Bidders, each with one request in flight.")
@click.option("--only", default="", help="Run only our contenders whose name contains this (yardsticks always run).")
def main(rounds: int, seconds: float, connections: int, only: str) -> None:
    """Accepted bids/s through HTTP against a bare ASGI echo and an idiomatic FastAPI gateway, on one core each."""
    click.echo(
        f"Python {platform.python_version()}, {platform.machine()}, {connections} connections, {seconds:g} s per run"
    )
    bench_gateway(rounds=rounds, seconds=seconds, connections=connections, only=only)


if __name__ == "__main__":
    main()
