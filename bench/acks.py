"""What the levels of acknowledgement cost: one gateway and one item under the same load, with ``appendfsync always``.

``replica`` has a second Redis that follows the first, on the same machine; ``redis`` and ``log`` have none. The relay
publishes at every level; with ``log`` the answers wait for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import statistics
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import click
from redis import Redis

from bench.gateway import Contender, Result, cores_apart, measure, spread
from infrastructure.local.processes import poll_until
from infrastructure.local.servers.binaries import find_redis
from infrastructure.local.servers.ports import HOST, Ports, free_ports
from infrastructure.local.stack import Stack

LEVELS = (
    Contender("BID_ACK=redis", "api_gateway", fsync="always", ack="redis"),
    Contender("BID_ACK=replica", "api_gateway", fsync="always", ack="replica"),
    Contender("BID_ACK=log", "api_gateway", fsync="always", ack="log"),
)
_FOLLOWS_WITHIN_S = 20.0


@contextlib.contextmanager
def _replica_of(stack: Stack) -> Iterator[None]:
    """A second Redis that has what the stack's has, in memory: what the level promises."""
    folder = stack.data_dir / "replica"
    folder.mkdir()
    (port,) = free_ports(1)
    words = ("--port", str(port), "--bind", HOST, "--dir", str(folder), "--save", "", "--appendonly", "no")
    process = subprocess.Popen(
        [str(find_redis(os.environ)), *words, "--replicaof", HOST, str(stack.ports.redis)], stdout=subprocess.DEVNULL
    )
    try:
        with Redis.from_url(stack.urls.redis_url) as redis:

            def follows() -> bool:
                replica = redis.info("replication").get("slave0")
                return replica is not None and replica["state"] == "online"

            if not asyncio.run(poll_until(follows, _FOLLOWS_WITHIN_S)):
                raise click.ClickException(f"the replica did not follow within {_FOLLOWS_WITHIN_S:g} s")
        yield
    finally:
        process.terminate()
        process.wait()


def _report(results: dict[str, list[Result]]) -> None:
    base = results[LEVELS[0].name]
    head = (
        f"{'':20}{'accepted/s':>11}{'spread':>17}{'of redis':>10}{'p50 ms':>8}{'spread':>12}{'p99 ms':>8}{'spread':>12}"
    )
    click.echo("\n" + head + f"{'failed':>8}")
    for name, runs in results.items():
        accepted = [run.accepted for run in runs]
        p50_ms, p99_ms = [run.p50_ms for run in runs], [run.p99_ms for run in runs]
        ratio = statistics.median(run.accepted / one.accepted for run, one in zip(runs, base, strict=True))
        click.echo(
            f"{name:20}{statistics.median(accepted):>11,.0f}{spread(accepted):>17}{ratio:>10.2f}"
            f"{statistics.median(p50_ms):>8.1f}{min(p50_ms):>6.1f}-{max(p50_ms):<5.1f}"
            f"{statistics.median(p99_ms):>8.1f}{min(p99_ms):>6.1f}-{max(p99_ms):<5.1f}"
            f"{sum(run.failed for run in runs):>8}"
        )


def bench_acks(*, rounds: int, seconds: float, connections: int) -> dict[str, list[Result]]:
    """Run all levels in ``rounds`` interleaved rounds and print the table."""
    click.echo("\nLevels of acknowledgement: one gateway, one item, appendfsync always")
    results: dict[str, list[Result]] = {level.name: [] for level in LEVELS}
    with cores_apart(), tempfile.TemporaryDirectory(prefix="bidding-bench-") as directory:
        # PostgreSQL does not run as root, and has to get into the folder.
        Path(directory).chmod(0o755)
        folders = [Path(directory) / name for name in ("alone", "followed")]
        alone, followed = (Stack(each, ports=Ports.free(), services=(), migrate=True) for each in folders)
        try:
            asyncio.run(alone.start())
            asyncio.run(followed.start())
            with _replica_of(followed):
                for number in range(rounds):
                    for index, level in enumerate(LEVELS):
                        stack = followed if level.ack == "replica" else alone
                        run = number * len(LEVELS) + index
                        result = measure(level, stack, run=run, connections=connections, seconds=seconds)
                        results[level.name].append(result)
                        click.echo(
                            f"round {number + 1}/{rounds}  {level.name:20}{result.accepted:>9,.0f} accepted/s"
                            f"  p50 {result.p50_ms:.1f} ms  p99 {result.p99_ms:.1f} ms"
                        )
        finally:
            for stack in (followed, alone):
                asyncio.run(stack.stop())
    _report(results)
    return results
