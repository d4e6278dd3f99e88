"""What several broadcasters cost: bids over 1,000 items, of which a few are watched, and the CPU of each of 1, 2 and 3
broadcasters that share one port. Bids come at a slow pace, where each event is a message of its own, and then as fast
as they are taken."""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import click
import psutil
import uvloop

from bench.clients.closed_loop import bid_requests, load
from bench.clients.paced import bid_at_pace, bid_many
from bench.feed import SETTLE_S, cpu_s_of, new_folder
from bench.gateway import cores_apart
from bench.growth import trimmed
from infrastructure.local.servers.ports import Ports
from infrastructure.local.services import BROADCAST_SERVICE, process_names
from infrastructure.local.stack import Stack
from load_tests.generator.crowd import Viewers

_ITEMS: Final = 1_000
_WATCHED: Final = 5
_VIEWERS_EACH: Final = 20
_RATE: Final = 200.0
"""Bids a second: few enough that the pace holds on a small machine."""
_CONNECTIONS: Final = 128
_WARM_UP_S: Final = 2.0
_COUNTS: Final = (1, 2, 3)


@dataclass(frozen=True, slots=True)
class Several:
    """A measurement of ``count`` broadcasters.

    ``cpu_us``: µs of CPU of each per event of any item, without the share ``idle`` of a core that an idle one takes.
    ``busy_us``: the same while bids come as fast as they are taken, ``rate`` a second. ``frames``: those that all
    viewers got at the slow pace.
    """

    count: int
    cpu_us: list[float]
    idle: float
    frames: int
    rate: float
    busy_us: list[float]


async def _measure(folder: Path, count: int, *, seconds: float) -> Several:
    stack = Stack(
        folder,
        ports=Ports.free(),
        services=("api_gateway", BROADCAST_SERVICE),
        env={"LOG_LEVEL": "ERROR", "OPEN_CATALOGUE": "true", "FEED_CONNECTIONS_PER_ADDRESS_MAX": "0"},
        migrate=True,
        redis_appendfsync="everysec",
        broadcasters=count,
    )
    async with stack, contextlib.AsyncExitStack() as crowds, trimmed(stack.urls.redis_url):
        ids = [f"lot-{number}" for number in range(_ITEMS)]
        requests = bid_requests(ids, keyed=False)
        await bid_many(stack.ports.gateway, requests, _ITEMS)
        watching = [
            await crowds.enter_async_context(
                Viewers.watching(stack.ports.broadcast, f"/ws/items/{item_id}", _VIEWERS_EACH)
            )
            for item_id in ids[:: _ITEMS // _WATCHED]
        ]
        broadcasters = [psutil.Process(stack.pid(name)) for name in process_names(BROADCAST_SERVICE, count)]
        await asyncio.sleep(SETTLE_S)
        idle_began = sum(map(cpu_s_of, broadcasters))
        await asyncio.sleep(seconds)
        idle = (sum(map(cpu_s_of, broadcasters)) - idle_began) / seconds / count
        for crowd in watching:
            await crowd.ask("mark")
        began, before = time.perf_counter(), [cpu_s_of(each) for each in broadcasters]
        accepted = await bid_at_pace(stack.ports.gateway, requests, rate=_RATE, seconds=seconds)
        await asyncio.sleep(SETTLE_S)
        idled_s = idle * (time.perf_counter() - began)
        used = [cpu_s_of(each) - one - idled_s for each, one in zip(broadcasters, before, strict=True)]
        reports = [await crowd.ask("report") for crowd in watching]
        snapshots: list[list[float]] = []

        def cpu_s() -> float:
            snapshots.append([cpu_s_of(each) for each in broadcasters])
            return 0.0

        tally, took_s, _ = await load(
            stack.ports.gateway,
            requests,
            connections=_CONNECTIONS,
            warm_up_s=_WARM_UP_S,
            measure_s=seconds,
            cpu_s=cpu_s,
        )
    busy = [
        (behind - before - idle * took_s) / max(1, tally.accepted) for before, behind in zip(*snapshots, strict=True)
    ]
    wrong = [each for each in reports if each["closed"] or each["fell_back"]]
    if wrong or not accepted:
        raise click.ClickException(f"the feed is not sound: {wrong}, {accepted} bids were accepted")
    return Several(
        count,
        [each / accepted * 1e6 for each in used],
        idle,
        sum(each["frames"] for each in reports),
        tally.accepted / took_s,
        [each * 1e6 for each in busy],
    )


def bench_broadcasters(*, rounds: int, seconds: float) -> list[Several]:
    """The medians of ``rounds`` rounds for each number of broadcasters; prints them."""
    click.echo(f"\n{_RATE:g} bids/s over {_ITEMS:,} items, {_WATCHED} watched by {_VIEWERS_EACH} viewers each")
    runs: dict[int, list[Several]] = {count: [] for count in _COUNTS}
    with cores_apart():
        for number in range(rounds):
            for count in _COUNTS:
                with new_folder() as folder:
                    runs[count].append(uvloop.run(_measure(folder, count, seconds=seconds)))
                told = ", ".join(f"{each:.0f}" for each in runs[count][-1].cpu_us)
                click.echo(f"round {number + 1}/{rounds}  {count} broadcasters: {told} µs per event")
    medians = [_median(each) for each in runs.values()]
    head = f"{'broadcasters':>12}{'µs per event, each':>26}{'together':>10}{'idle':>8}{'frames':>9}"
    click.echo(f"\n{head}{'bids/s':>10}{'µs per event then':>26}{'together':>10}")
    for one in medians:
        slow, busy = (", ".join(f"{cpu:.0f}" for cpu in each) for each in (one.cpu_us, one.busy_us))
        click.echo(
            f"{one.count:>12}{slow:>26}{sum(one.cpu_us):>10.0f}{one.idle:>8.1%}{one.frames:>9,}"
            f"{one.rate:>10,.0f}{busy:>26}{sum(one.busy_us):>10.0f}"
        )
    return medians


def _median(runs: list[Several]) -> Several:
    return Several(
        runs[0].count,
        _each([run.cpu_us for run in runs]),
        statistics.median(run.idle for run in runs),
        round(statistics.median(run.frames for run in runs)),
        statistics.median(run.rate for run in runs),
        _each([run.busy_us for run in runs]),
    )


def _each(runs: list[list[float]]) -> list[float]:
    # The busiest first: the kernel decides to which broadcaster a viewer connects, so they have no other order.
    ordered = [sorted(run, reverse=True) for run in runs]
    return [statistics.median(each) for each in zip(*ordered, strict=True)]
