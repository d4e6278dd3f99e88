"""What several broadcasters cost: bids at a given pace over 1,000 items, of which a few are watched, and the CPU of
each of 1, 2 and 3 broadcasters that share one port."""

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

from bench.client import bid_requests
from bench.feed import SETTLE_S, cpu_s_of, new_folder
from bench.gateway import cores_apart
from bench.growth import trimmed
from bench.paced import bid_at_pace, bid_many
from infrastructure.local.servers.ports import Ports
from infrastructure.local.services import BROADCAST_SERVICE, process_names
from infrastructure.local.stack import Stack
from load_tests.generator.crowd import Viewers

_ITEMS: Final = 1_000
_WATCHED: Final = 5
_VIEWERS_EACH: Final = 20
_RATE: Final = 200.0
"""Bids a second: few enough that the pace holds on a small machine."""
_COUNTS: Final = (1, 2, 3)


@dataclass(frozen=True, slots=True)
class Several:
    """So many broadcasters: µs of CPU of each per event of the whole house, without what it takes when idle; and the
    share of a core that an idle one takes. ``frames``: those that all viewers got."""

    count: int
    cpu_us: list[float]
    idle: float
    frames: int


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
    wrong = [each for each in reports if each["closed"] or each["fell_back"]]
    if wrong or not accepted:
        raise click.ClickException(f"the feed is not sound: {wrong}, {accepted} bids were accepted")
    return Several(count, [each / accepted * 1e6 for each in used], idle, sum(each["frames"] for each in reports))


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
    click.echo(f"\n{'broadcasters':>12}{'µs per event, each':>28}{'together':>10}{'idle':>8}{'frames':>9}")
    for one in medians:
        each = ", ".join(f"{cpu:.0f}" for cpu in one.cpu_us)
        click.echo(f"{one.count:>12}{each:>28}{sum(one.cpu_us):>10.0f}{one.idle:>8.1%}{one.frames:>9,}")
    return medians


def _median(runs: list[Several]) -> Several:
    # The busiest first: which one a viewer comes to is up to the kernel.
    ordered = [sorted(run.cpu_us, reverse=True) for run in runs]
    return Several(
        runs[0].count,
        [statistics.median(each) for each in zip(*ordered, strict=True)],
        statistics.median(run.idle for run in runs),
        round(statistics.median(run.frames for run in runs)),
    )
