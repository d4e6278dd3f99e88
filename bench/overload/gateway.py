"""What a gateway does below its peak and above it: bids at 0.4 and 0.8 of its peak, at twice its peak, at half of it.

The peak is that of a closed loop, measured just before. Latencies count from when a bid was due. A gateway sheds bids
that would wait for longer than ``BID_WAIT_MAX_MS``, and in a standing queue for longer than ``BID_WAIT_STANDING_MS``;
with both 0 it lets 20,000 bids wait.

The generator shares a core with Redis, and above the peak it lags, too. So beside the client's p99 there is that of the
gateway's own histogram, from the head of a request to its verdict: the upper bound of the bucket in which it is.
"""

from __future__ import annotations

import asyncio
import itertools
import resource
import statistics
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

import click
import uvloop

from bench.clients.closed_loop import bid_requests, load
from bench.gateway import cores_apart, served
from bench.overload.inside import Buckets, p99_ms, read_buckets
from bench.overload.open_loop import Course, offer
from infrastructure.local.servers.ports import Ports
from infrastructure.local.stack import Stack
from load_tests.generator.samples import percentiles_ms

_CONNECTIONS_MIN: Final = 2_000
_CONNECTIONS_MAX: Final = 12_000
_OPEN_S: Final = 0.3
"""For how long the requests of twice the peak may be without an answer before there are too few connections."""
_CLOSED_CONNECTIONS: Final = 128
_BURST_S: Final = 2.0
"""The beginning of twice the peak, which is told apart: a queue becomes a standing one, and is worked off."""
_NORMAL_MS: Final = 50.0
"""An answer that comes within this is a normal one, and so is one that is as quick as 99 of 100 are below the peak."""
_WINDOW_S: Final = 0.25
_NORMAL_PART: Final = 0.9
"""As long as fewer answers of a window are normal ones, the gateway is not back to normal. Single slow ones are the
machine's: there are such at any pace."""


@dataclass(frozen=True, slots=True)
class Pace:
    """One pace of a run: bids a second, and milliseconds; ``inside_p99_ms`` is a bound, see above."""

    offered: float
    decided: float
    shed: float
    unanswered: int
    p50_ms: float
    p99_ms: float
    shed_p99_ms: float
    inside_p99_ms: float


@dataclass(frozen=True, slots=True)
class Run:
    """A run: the peak, its paces, and how long after the overload it was back to normal (seconds)."""

    peak: float
    paces: list[Pace]
    normal_again_s: float


def _pace(course: Course, seconds: float, inside_p99_ms: float) -> Pace:
    decided = [answer.took_s for answer in course.answers if answer.status in (200, 201)]
    shed = [answer.took_s for answer in course.answers if answer.status == 503]
    others = len(course.answers) - len(decided) - len(shed)
    if others:
        raise click.ClickException(f"{others} bids were neither decided nor shed")
    times = percentiles_ms(decided)
    return Pace(
        course.offered / seconds,
        sum(answer.status != 503 for answer in course.answered_in_time) / seconds,
        sum(answer.status == 503 for answer in course.answered_in_time) / seconds,
        course.unanswered,
        times.get("p50", 0.0),
        times.get("p99", 0.0),
        percentiles_ms(shed).get("p99", 0.0),
        inside_p99_ms,
    )


def _normal_again_s(after: Course, began_s: float, normal_ms: float) -> float:
    """When the last window ended in which bids were shed or too many answers slow, from the end of the overload on."""
    windows: dict[int, list[bool]] = {}
    for answer in after.answers:
        is_normal = answer.status != 503 and answer.took_s * 1e3 <= normal_ms
        windows.setdefault(int((answer.due_s - began_s) / _WINDOW_S), []).append(is_normal)
    bad = [number for number, normal in windows.items() if sum(normal) < _NORMAL_PART * len(normal)]
    return (max(bad) + 1) * _WINDOW_S if bad else 0.0


async def _run(port: int, item_ids: list[str], *, seconds: float, warm_up_s: float) -> Run:
    requests = bid_requests(item_ids, keyed=False)
    tally, took_s, _ = await load(
        port,
        requests,
        connections=_CLOSED_CONNECTIONS,
        warm_up_s=warm_up_s,
        measure_s=seconds,
        cpu_s=lambda: 0.0,
    )
    peak = tally.answered / took_s
    paces = [
        (0.4 * peak, seconds),
        (0.8 * peak, seconds),
        (2 * peak, _BURST_S),
        (2 * peak, seconds),
        (0.5 * peak, seconds),
    ]
    # Else the requests would wait in the generator, and the gateway had no more of them than it has connections.
    files = resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 200
    connections = min(_CONNECTIONS_MAX, files, max(_CONNECTIONS_MIN, int(2 * peak * _OPEN_S)))
    looks: list[asyncio.Task[Buckets]] = []
    courses = await offer(
        port,
        requests,
        paces=paces,
        connections=connections,
        on_change=lambda: looks.append(asyncio.create_task(read_buckets(port))),
    )
    buckets = await asyncio.gather(*looks)
    inside = [p99_ms(before, after) for before, after in itertools.pairwise(buckets)]
    after = courses[-1]
    began_s = min((answer.due_s for answer in after.answers), default=0.0)
    told = [
        _pace(course, length, inside_ms) for course, (_, length), inside_ms in zip(courses, paces, inside, strict=True)
    ]
    return Run(peak, told, _normal_again_s(after, began_s, max(_NORMAL_MS, told[0].p99_ms)))


class Setting(NamedTuple):
    """What is compared: bids over so many items, and how many milliseconds a bid may wait; 0 is without a bound."""

    items: int
    wait_ms: int
    standing_ms: int


SETTINGS: Final = [Setting(items, *waits) for items in (1, 1_000) for waits in ((0, 0), (1_000, 0), (1_000, 150))]
PACES: Final = (
    "0.4 of the peak",
    "0.8 of the peak",
    f"twice the peak, {_BURST_S:.0f} s",
    "twice the peak, then",
    "then half of it",
)
"""The names of a run's paces."""


def bench_overload(*, rounds: int, seconds: float, only: str = "") -> dict[Setting, list[Run]]:
    """Run the settings whose name contains ``only``, in ``rounds`` rounds, and print the medians."""
    results: dict[Setting, list[Run]] = {setting: [] for setting in SETTINGS if only in _name(setting)}
    if not results:
        click.echo(f"overload: no setting is called like {only!r}; they are: {'; '.join(map(_name, SETTINGS))}")
        return {}
    with cores_apart(), tempfile.TemporaryDirectory(prefix="bidding-bench-") as directory:
        stack = Stack(Path(directory), ports=Ports.free(), services=(), migrate=True, redis_appendfsync="everysec")
        try:
            asyncio.run(stack.start())
            for number in range(rounds):
                for setting, runs in results.items():
                    runs.append(_measured(stack, setting, f"overload-{number}", seconds=seconds))
                    click.echo(f"round {number + 1}/{rounds}  {_name(setting)}: peak {runs[-1].peak:,.0f} bids/s")
        finally:
            asyncio.run(stack.stop())
    _report(results)
    return results


def _measured(stack: Stack, setting: Setting, prefix: str, *, seconds: float) -> Run:
    env = stack.service_env | {
        "OPEN_CATALOGUE": "true",
        "LOG_LEVEL": "ERROR",
        "BID_WAIT_MAX_MS": str(setting.wait_ms),
        "BID_WAIT_STANDING_MS": str(setting.standing_ms),
        # All bidders come from one address of this machine.
        "GATEWAY_CONNECTIONS_PER_ADDRESS_MAX": "0",
    }
    item_ids = ["-".join(map(str, (prefix, *setting, one))) for one in range(setting.items)]
    with served("api_gateway", env, stack.ports.gateway):
        warm_up_s = 1.0 + setting.items * 0.01
        return uvloop.run(_run(stack.ports.gateway, item_ids, seconds=seconds, warm_up_s=warm_up_s))


def _report(results: dict[Setting, list[Run]]) -> None:
    click.echo()
    head = f"{'':28}{'offered/s':>11}{'decided/s':>11}{'of peak':>9}{'shed/s':>9}{'p50 ms':>9}{'p99 ms':>9}"
    click.echo(f"{head}{'shed p99':>10}{'inside':>9}{'unanswered':>12}")
    for setting, runs in results.items():
        click.echo(_name(setting))
        for index, name in enumerate(PACES):
            paces = [run.paces[index] for run in runs]
            of_peak = statistics.median(run.paces[index].decided / run.peak for run in runs)
            click.echo(
                f"{f'  {name}':28}{_median(paces, 'offered'):>11,.0f}{_median(paces, 'decided'):>11,.0f}"
                f"{of_peak:>9.2f}{_median(paces, 'shed'):>9,.0f}{_median(paces, 'p50_ms'):>9.1f}"
                f"{_median(paces, 'p99_ms'):>9.1f}{_median(paces, 'shed_p99_ms'):>10.1f}"
                f"{_median(paces, 'inside_p99_ms'):>9.0f}"
                f"{sum(pace.unanswered for pace in paces):>12}"
            )
        again = [run.normal_again_s for run in runs]
        click.echo(f"{'':4}normal again after {statistics.median(again):.2f} s ({min(again):.2f} to {max(again):.2f})")


def _name(setting: Setting) -> str:
    items = f"{setting.items:,} items" if setting.items > 1 else "one item"
    if not setting.wait_ms:
        return f"{items}, 20,000 bids may wait"
    standing = f", {setting.standing_ms} ms in a standing queue" if setting.standing_ms else ""
    return f"{items}, a bid may wait {setting.wait_ms:,} ms{standing}"


def _median(paces: list[Pace], name: str) -> float:
    return statistics.median([float(getattr(pace, name)) for pace in paces])
