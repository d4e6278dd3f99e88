"""The live feed under load: from the decision of a bid to the frame in a viewer's hands.

Five questions, each on the real path (HTTP, script, relay, JetStream, broadcaster, socket), with the broadcaster on a
core of its own and everything else, its viewers among it, on the others:

- *latency*: 1,000 viewers of one item at 50 bids/s, at the default rate of frames and with every bid;
- *fan-out*: frames per second of CPU time, beside the same bytes written to as many plain uvloop transports at the
  same pace;
- *slow viewer*: the same with some viewers that stop reading, against the same without them;
- *crowd*: 10,000 connections at 5 bids/s, memory per connection;
- *soak*: a day's worth of events in minutes, viewers coming and going: is the memory flat?

A latency runs from the time in the event, which Redis gave it when it decided the bid, to the frame's arrival; both are
read from the clock of this machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

import click
import httpx2 as httpx
import psutil
import uvloop

from bench.clients.closed_loop import bid_requests
from bench.clients.paced import bid_at_pace, bid_many
from bench.gateway import SERVER_CORE, cores_apart
from bench.yardsticks.plain_fanout import frame as plain_frame
from infrastructure.local.servers.ports import Ports
from infrastructure.local.stack import Stack
from load_tests.generator.crowd import Viewers

SETTLE_S: Final = 1.5
STALLED: Final = 20
SOAK_EVENTS: Final = 5 * 86_400
"""A day at five bids a second, which is a busy item."""

_ENV: Final = {
    "LOG_LEVEL": "ERROR",
    "OPEN_CATALOGUE": "true",
    # All viewers come from a few addresses of this machine.
    "FEED_CONNECTIONS_PER_ADDRESS_MAX": "0",
    "FEED_CONNECTIONS_MAX": "20000",
}


@dataclass(frozen=True, slots=True)
class Run:
    """One measured stretch: what the viewers counted, and what the server used for it."""

    report: dict[str, Any]
    took_s: float
    cpu_s: float

    @property
    def frames_per_cpu_s(self) -> float:
        """Frames that a whole core would send in a second."""
        return float(self.report["frames"]) / self.cpu_s

    def latency(self, name: str) -> float:
        """A percentile of the latencies, such as ``p99``, in milliseconds."""
        return float(self.report["latency_ms"].get(name, float("nan")))


def cpu_s_of(process: psutil.Process) -> float:
    """The CPU time that the process has used so far, in seconds."""
    times = process.cpu_times()
    return float(times.user + times.system)


class World:
    """The stack, with the broadcaster on its core."""

    def __init__(self, stack: Stack) -> None:
        self.stack = stack
        self._items = 0

    @classmethod
    @contextlib.asynccontextmanager
    async def running(
        cls, folder: Path, env: Mapping[str, str] | None = None, *, archives: bool = False
    ) -> AsyncIterator[Self]:
        """``archives``: with the archival worker, without which the outbox is full after some 50,000 entries."""
        services = ("api_gateway", "broadcast_service", *(("archival_worker",) if archives else ()))
        stack = Stack(
            folder,
            ports=Ports.free(),
            services=services,
            env=_ENV | dict(env or {}),
            migrate=True,
            redis_appendfsync="everysec",
        )
        async with stack:
            world = cls(stack)
            world.pin()
            yield world

    @property
    def broadcaster(self) -> psutil.Process:
        return psutil.Process(self.stack.pid("broadcast_service"))

    def pin(self) -> None:
        """Put the broadcaster on its core; everything else is on the others already."""
        with contextlib.suppress(AttributeError, OSError):
            os.sched_setaffinity(self.broadcaster.pid, {SERVER_CORE})

    def new_item(self) -> str:
        self._items += 1
        return f"feed-{self._items}"

    async def measure(
        self, item_id: str, *, viewers: int, rate: float, seconds: float, query: str, stalled: int
    ) -> Run:
        """Measure the feed of one item with ``viewers`` viewers at ``rate`` bids a second."""
        ports = self.stack.ports
        requests = bid_requests([item_id], keyed=False)
        await bid_many(ports.gateway, requests, 1)
        path = f"/ws/items/{item_id}{query}"
        async with Viewers.watching(ports.broadcast, path, viewers, stalled=stalled) as crowd:
            await bid_at_pace(ports.gateway, requests, rate=rate, seconds=1.0)
            await crowd.ask("mark")
            began, cpu_began = time.perf_counter(), cpu_s_of(self.broadcaster)
            await bid_at_pace(ports.gateway, requests, rate=rate, seconds=seconds)
            took_s, cpu_s = time.perf_counter() - began, cpu_s_of(self.broadcaster) - cpu_began
            await asyncio.sleep(SETTLE_S)
            report = await crowd.ask("report")
            _require_sound(report, viewers)
            if stalled:
                report["stalled_closed"] = await self._closed_as_slow()
            return Run(report, took_s, cpu_s)

    async def _closed_as_slow(self) -> int:
        async with httpx.AsyncClient() as client:
            text = (await client.get(f"{self.stack.urls.broadcast_url}/metrics")).text
        return sum(int(float(line.rsplit(" ", 1)[1])) for line in text.splitlines() if 'slow_viewer"' in line)


def _require_sound(report: dict[str, Any], viewers: int) -> None:
    """Stop where the feed was wrong, however fast it was."""
    if report["fell_back"] or report["closed"] or report["at_newest"] != viewers:
        raise click.ClickException(
            f"the feed is not sound: {report['at_newest']} of {viewers} viewers have the newest state, "
            f"{report['fell_back']} frames were not newer than the one before, closed: {report['closed']}"
        )


@contextlib.asynccontextmanager
async def _plain(rate: float, padding: int) -> AsyncIterator[tuple[int, psutil.Process]]:
    """The yardstick on the broadcaster's core."""
    port = Ports.free().broadcast
    env = os.environ | {"BENCH_PORT": f"{port}", "BENCH_RATE": f"{rate}", "BENCH_PADDING": f"{padding}"}
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "bench.yardsticks.plain_fanout", env=env)
    with contextlib.suppress(AttributeError, OSError):
        os.sched_setaffinity(process.pid, {SERVER_CORE})
    try:
        await _until_listening(port)
        yield port, psutil.Process(process.pid)
    finally:
        process.send_signal(signal.SIGTERM)
        await process.wait()


async def _until_listening(port: int) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.02)
        else:
            writer.close()
            return


async def _measure_plain(*, viewers: int, rate: float, seconds: float, frame_bytes: int) -> Run:
    padding = max(0, frame_bytes - len(plain_frame(1_000)))
    async with _plain(rate, padding) as (port, process), Viewers.watching(port, "/", viewers) as crowd:
        await asyncio.sleep(1.0)
        await crowd.ask("mark")
        began, cpu_began = time.perf_counter(), cpu_s_of(process)
        await asyncio.sleep(seconds)
        took_s, cpu_s = time.perf_counter() - began, cpu_s_of(process) - cpu_began
        return Run(await crowd.ask("report"), took_s, cpu_s)


# --------------------------------------------------------------------------------------------------------- the parts


def _median(values: list[float]) -> float:
    return statistics.median(values)


def _spread(values: list[float], digits: int = 1) -> str:
    return f"{min(values):,.{digits}f}-{max(values):,.{digits}f}"


def _latency_line(name: str, runs: list[Run]) -> str:
    cells = "".join(f"{_median([run.latency(q) for run in runs]):>9.1f}" for q in ("p50", "p95", "p99", "max"))
    rate = _median([run.report["frames"] / run.took_s for run in runs])
    busy = _median([run.cpu_s / run.took_s for run in runs])
    spread = _spread([run.latency("p99") for run in runs])
    return f"{name:44}{cells}{spread:>14}{rate:>12,.0f}{busy:>7.0%}"


_LATENCY_HEAD: Final = (
    f"{'':44}{'p50':>9}{'p95':>9}{'p99':>9}{'max ms':>9}{'p99 spread':>14}{'frames/s':>12}{'core':>7}"
)


async def _latency_and_fanout(folder: Path, *, rounds: int, seconds: float, viewers: int) -> dict[str, list[Run]]:
    kinds = {
        f"{viewers:,} viewers, 50 bids/s, 20 frames/s": ("", 0),
        f"{viewers:,} viewers, 50 bids/s, every bid": ("?feed=full", 0),
        f"the same beside {STALLED} who stop reading": ("?feed=full", STALLED),
    }
    runs: dict[str, list[Run]] = {name: [] for name in kinds}
    plain: list[Run] = []
    # So that viewers who stop reading are noticed within a run.
    env = {"FEED_SEND_BUFFER_BYTES": "16384", "FEED_STALLED_MAX_S": "2"}
    async with World.running(folder, env) as world:
        for number in range(rounds):
            for name, (query, stalled) in kinds.items():
                item_id = world.new_item()
                run = await world.measure(
                    item_id, viewers=viewers, rate=50, seconds=seconds, query=query, stalled=stalled
                )
                runs[name].append(run)
            full = runs[list(kinds)[1]][-1]
            frame_bytes = round(full.report["bytes"] / full.report["frames"])
            plain.append(await _measure_plain(viewers=viewers, rate=50, seconds=seconds, frame_bytes=frame_bytes))
            ratio = full.frames_per_cpu_s / plain[-1].frames_per_cpu_s
            click.echo(
                f"round {number + 1}/{rounds}  p99 {full.latency('p99'):.1f} ms   {full.frames_per_cpu_s:,.0f} frames "
                f"per CPU second, plain {plain[-1].frames_per_cpu_s:,.0f}, ratio {ratio:.2f}"
            )
    click.echo(_LATENCY_HEAD)
    for name, each in runs.items():
        click.echo(_latency_line(name, each))
    full_runs, slow_runs = list(runs.values())[1:]
    ratios = [ours.frames_per_cpu_s / base.frames_per_cpu_s for ours, base in zip(full_runs, plain, strict=True)]
    click.echo(
        f"fan-out: {_median([run.frames_per_cpu_s for run in full_runs]):,.0f} frames per second and core, "
        f"plain transports {_median([run.frames_per_cpu_s for run in plain]):,.0f}, "
        f"ratio {_median(ratios):.2f} ({_spread(ratios, 2)})"
    )
    p99s = [slow.latency("p99") / alone.latency("p99") for slow, alone in zip(slow_runs, full_runs, strict=True)]
    closed = slow_runs[-1].report["stalled_closed"]
    click.echo(
        f"slow viewers: p99 of the others {_median(p99s):.2f} x ({_spread(p99s, 2)}) of that without them; "
        f"{closed} of {STALLED * rounds} were closed as slow"
    )
    return {**runs, "plain transports": plain}


async def _crowd(folder: Path, *, viewers: int, seconds: float) -> dict[str, object]:
    async with World.running(folder) as world:
        item_id = world.new_item()
        ports = world.stack.ports
        requests = bid_requests([item_id], keyed=False)
        await bid_many(ports.gateway, requests, 1)
        before = world.broadcaster.memory_info().rss
        async with Viewers.watching(ports.broadcast, f"/ws/items/{item_id}", viewers) as crowd:
            await asyncio.sleep(SETTLE_S)
            per_connection = (world.broadcaster.memory_info().rss - before) / viewers
            await crowd.ask("mark")
            began, cpu_began = time.perf_counter(), cpu_s_of(world.broadcaster)
            await bid_at_pace(ports.gateway, requests, rate=5, seconds=seconds)
            took_s, cpu_s = time.perf_counter() - began, cpu_s_of(world.broadcaster) - cpu_began
            await asyncio.sleep(SETTLE_S)
            report = await crowd.ask("report")
            loaded = (world.broadcaster.memory_info().rss - before) / viewers
        _require_sound(report, viewers)
        run = Run(report, took_s, cpu_s)
        click.echo(_LATENCY_HEAD)
        click.echo(_latency_line(f"{viewers:,} viewers, 5 bids/s", [run]))
        click.echo(
            f"connected in {crowd.connected['took_s']:.1f} s; memory per connection {per_connection / 1024:.1f} KiB "
            f"idle, {loaded / 1024:.1f} KiB after the load; {report['at_newest']:,} of {viewers:,} have the final state"
        )
        return {"run": run, "connection_bytes": per_connection, "connection_bytes_after": loaded}


async def _soak(folder: Path, *, events: int, viewers: int = 100) -> dict[str, float]:
    """Memory in the second quarter of the events against the last quarter."""
    samples: list[tuple[int, int]] = []
    async with World.running(folder, archives=True) as world:
        item_id = world.new_item()
        ports = world.stack.ports
        requests = bid_requests([item_id], keyed=False)
        await bid_many(ports.gateway, requests, 1)
        path = f"/ws/items/{item_id}"
        began = time.perf_counter()
        done = 0
        async with (
            Viewers.watching(ports.broadcast, path, viewers) as crowd,
            Viewers.watching(ports.broadcast, f"{path}?feed=full", 5) as thorough,
        ):
            slice_of = max(1, events // 60)
            while done < events:
                await bid_many(ports.gateway, requests, slice_of)
                done += slice_of
                async with Viewers.watching(ports.broadcast, path, 20):  # they come, look, and go
                    pass
                samples.append((done, world.broadcaster.memory_info().rss))
            await asyncio.sleep(SETTLE_S)
            reports = [await crowd.ask("report"), await thorough.ask("report")]
        _require_sound(reports[0], viewers)
        _require_sound(reports[1], 5)
        quarter = len(samples) // 4
        early = statistics.median(rss for _, rss in samples[quarter : 2 * quarter])
        late = statistics.median(rss for _, rss in samples[-quarter:])
        click.echo(
            f"soak: {done:,} events in {time.perf_counter() - began:.0f} s, {20 * len(samples):,} viewers came and "
            f"went; memory {early / 2**20:.1f} MiB in the second quarter, {late / 2**20:.1f} MiB in the last "
            f"({(late - early) / early:+.1%})"
        )
        return {"events": done, "early_bytes": early, "late_bytes": late}


@contextlib.contextmanager
def new_folder() -> Iterator[Path]:
    """A folder for a stack, removed afterwards."""
    with tempfile.TemporaryDirectory(prefix="bidding-bench-") as directory:
        # PostgreSQL does not run as root, and has to get into the folder.
        Path(directory).chmod(0o755)
        yield Path(directory) / "stack"


def bench_feed(*, rounds: int, seconds: float, viewers: int, crowd: int, soak_events: int) -> dict[str, object]:
    """Run all parts and print what was seen; a count of 0 leaves a part out. Returns what each measured."""
    click.echo(f"\nFeed: {rounds} rounds of {seconds:g} s")
    results: dict[str, object] = {}
    with cores_apart():
        if viewers:
            with new_folder() as folder:
                run = _latency_and_fanout(folder, rounds=rounds, seconds=seconds, viewers=viewers)
                results["latency"] = uvloop.run(run)
        if crowd:
            with new_folder() as folder:
                results["crowd"] = uvloop.run(_crowd(folder, viewers=crowd, seconds=max(seconds, 10)))
        if soak_events:
            with new_folder() as folder:
                results["soak"] = uvloop.run(_soak(folder, events=soak_events))
    return results
