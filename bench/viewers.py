"""What a bid costs while ever more viewers look at its item: bids of a closed loop on one item, the gateway on a core
of its own, the broadcaster and its viewers beside Redis, NATS and the client on the others.

On two cores the broadcaster takes time from Redis, and that shows in bids/s; not in the gateway's CPU per bid.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import statistics
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click
import psutil
import uvloop

from bench.clients.closed_loop import bid_requests, load
from bench.clients.paced import bid_many
from bench.feed import SETTLE_S, World, cpu_s_of, new_folder
from bench.gateway import SERVER_CORE, cores_apart
from bench.growth import trimmed
from load_tests.generator.crowd import Viewers
from load_tests.generator.samples import percentiles_ms

_CONNECTIONS: Final = 128
_CROWDS: Final = (0, 100, 1_000, 10_000)


@dataclass(frozen=True, slots=True)
class Watched:
    """So many viewers: accepted bids a second, the gateway's CPU for each, milliseconds, and the share of a core that
    the broadcaster used."""

    viewers: int
    rate: float
    cpu_us: float
    p50_ms: float
    p99_ms: float
    broadcaster: float


@contextlib.asynccontextmanager
async def _watching(port: int, item_id: str, viewers: int) -> AsyncIterator[None]:
    if not viewers:
        yield
        return
    async with Viewers.watching(port, f"/ws/items/{item_id}", viewers) as crowd:
        yield
        await asyncio.sleep(SETTLE_S)
        report = await crowd.ask("report")
    if report["closed"] or report["fell_back"]:
        raise click.ClickException(f"the feed is not sound: closed {report['closed']}, back {report['fell_back']}")


async def _step(world: World, viewers: int, *, seconds: float) -> Watched:
    ports, item_id = world.stack.ports, world.new_item()
    gateway = psutil.Process(world.stack.pid("api_gateway"))
    requests = bid_requests([item_id], keyed=False)
    await bid_many(ports.gateway, requests, 1)
    broadcaster: list[float] = []

    def cpu_s() -> float:
        broadcaster.append(cpu_s_of(world.broadcaster))
        return cpu_s_of(gateway)

    async with _watching(ports.broadcast, item_id, viewers):
        tally, took_s, used_s = await load(
            ports.gateway, requests, connections=_CONNECTIONS, warm_up_s=1.0, measure_s=seconds, cpu_s=cpu_s
        )
    if tally.failed:
        raise click.ClickException(f"{tally.failed} bids failed beside {viewers:,} viewers")
    times = percentiles_ms(tally.latencies_s)
    return Watched(
        viewers,
        tally.accepted / took_s,
        used_s / max(1, tally.accepted) * 1e6,
        times.get("p50", 0.0),
        times.get("p99", 0.0),
        (broadcaster[1] - broadcaster[0]) / took_s,
    )


async def _all(folder: Path, *, rounds: int, seconds: float, crowds: list[int]) -> list[list[Watched]]:
    runs: list[list[Watched]] = [[] for _ in crowds]
    async with World.running(folder) as world, trimmed(world.stack.urls.redis_url):
        with contextlib.suppress(AttributeError, OSError):
            gateway = world.stack.pid("api_gateway")
            assert gateway is not None
            os.sched_setaffinity(world.broadcaster.pid, os.sched_getaffinity(0))
            os.sched_setaffinity(gateway, {SERVER_CORE})
        for number in range(rounds):
            for viewers, steps in zip(crowds, runs, strict=True):
                steps.append(await _step(world, viewers, seconds=seconds))
                click.echo(f"round {number + 1}/{rounds}  {viewers:>6,} viewers {steps[-1].rate:>8,.0f} bids/s")
    return runs


def bench_viewers(*, rounds: int, seconds: float, viewers_max: int) -> list[Watched]:
    """The medians of ``rounds`` rounds for 0 to ``viewers_max`` viewers; prints them."""
    click.echo("\nBids on one item with viewers")
    crowds = [viewers for viewers in _CROWDS if viewers <= viewers_max]
    with cores_apart(), new_folder() as folder:
        runs = uvloop.run(_all(folder, rounds=rounds, seconds=seconds, crowds=crowds))
    medians = [_median(steps) for steps in runs]
    click.echo(f"\n{'viewers':>10}{'bids/s':>10}{'µs/bid':>9}{'p50 ms':>9}{'p99 ms':>9}{'broadcaster':>13}")
    for each in medians:
        click.echo(
            f"{each.viewers:>10,}{each.rate:>10,.0f}{each.cpu_us:>9.1f}{each.p50_ms:>9.1f}{each.p99_ms:>9.1f}"
            f"{each.broadcaster:>13.0%}"
        )
    return medians


def _median(steps: list[Watched]) -> Watched:
    def of(name: str) -> float:
        return statistics.median([float(getattr(step, name)) for step in steps])

    return Watched(steps[0].viewers, of("rate"), of("cpu_us"), of("p50_ms"), of("p99_ms"), of("broadcaster"))
