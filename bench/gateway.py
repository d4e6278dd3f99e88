"""Accepted bids per second through HTTP, beside a bare echo and an idiomatic gateway under the same server.

The contenders of a round run in turn, each alone on core 0; the client, Redis and NATS run on the other cores. The
rounds interleave the contenders, so that a slow minute of a shared machine hits all of them; ratios are taken within a
round, and their median is what counts.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import click
import psutil
import uvloop

from bench.clients.closed_loop import (
    Tally,
    batch_requests,
    bid_messages,
    bid_requests,
    load,
    new_item_batch_requests,
    new_item_requests,
    read_and_bid_requests,
    read_requests,
    too_low_requests,
)
from bench.identity import GUARDED, guarded_bid_requests
from infrastructure.local.servers.ports import Ports, free_ports
from infrastructure.local.servers.redis_and_nats import AppendFsync
from infrastructure.local.stack import Stack

SERVER_CORE = 0


@dataclass(frozen=True, slots=True)
class Contender:
    """Something that takes bids: the module to run, and how the client drives it.

    ``ack`` is the level at which a bid is acknowledged; with ``replica`` its Redis must have one. ``requests`` makes
    its traffic, of bids where it is None. ``counts``: whether its rate is that of accepted bids, or of all answers.
    ``in_flight``: bids on each of its WebSockets; 0 for requests. ``connections``: instead of those of the run.
    ``settings``: of its own. ``beside``: the name of another contender with which it is compared, too. ``processes``:
    how many share the port. All of them are on the one core, so this shows what several processes cost, not what they
    gain.
    ``sample_every``: one in so many requests of a connection has its latency taken.
    """

    name: str
    module: str
    fsync: AppendFsync = "everysec"
    keyed: bool = False
    items: int = 1
    ack: Literal["redis", "replica", "log"] = "redis"
    requests: Callable[[list[str]], Iterator[bytes]] | None = None
    counts: Literal["accepted", "answered"] = "accepted"
    in_flight: int = 0
    connections: int | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    beside: str = ""
    processes: int = 1
    sample_every: int = 16

    def traffic(self, item_ids: list[str]) -> Iterator[bytes]:
        """Its requests, without end."""
        return bid_requests(item_ids, keyed=self.keyed) if self.requests is None else self.requests(item_ids)

    @property
    def warm_up_s(self) -> float:
        """Long enough for all items to be opened by their first bids."""
        return 1.0 + self.items * 0.01


def _bid_and_reads(item_ids: list[str]) -> Iterator[bytes]:
    bids = bid_requests(item_ids, keyed=False)
    return itertools.chain(itertools.islice(bids, 2 * len(item_ids)), read_requests(item_ids))


CONTENDERS = (
    Contender("bare ASGI echo", "bench.yardsticks.echo"),
    Contender("idiomatic FastAPI + redis-py", "bench.yardsticks.idiomatic"),
    Contender("gateway, everysec", "api_gateway"),
    Contender(
        "gateway, tokens, limits, logs",
        "api_gateway",
        requests=guarded_bid_requests,
        settings=GUARDED,
        beside="gateway, everysec",
    ),
    Contender("gateway, always", "api_gateway", fsync="always"),
    Contender("gateway, everysec, with bid_id", "api_gateway", keyed=True),
    Contender("gateway, everysec, 100 items", "api_gateway", items=100),
    Contender("gateway, everysec, 1,000 items", "api_gateway", items=1_000),
    *(
        Contender(
            f"{count} gateways on one port, 100 items",
            "api_gateway",
            items=100,
            processes=count,
            beside="gateway, everysec, 100 items",
        )
        for count in (2, 4)
    ),
    Contender("gateway, batches of 100 bids", "api_gateway", items=10, requests=batch_requests, sample_every=1),
    Contender("gateway, 9 of 10 bids too low", "api_gateway", requests=too_low_requests, counts="answered"),
    Contender("gateway, reads of one item", "api_gateway", requests=_bid_and_reads, counts="answered"),
    Contender("gateway, reads of 100 items", "api_gateway", items=100, requests=_bid_and_reads, counts="answered"),
    Contender("gateway, WebSocket bids", "api_gateway", requests=bid_messages, in_flight=256, connections=4),
    Contender(
        "gateway, WebSocket bids, 100 items",
        "api_gateway",
        items=100,
        requests=bid_messages,
        in_flight=256,
        connections=4,
    ),
    Contender("gateway, new items", "api_gateway", requests=new_item_requests),
    Contender(
        "gateway, new items, 100 a request",
        "api_gateway",
        requests=new_item_batch_requests,
        connections=8,
        sample_every=1,
        beside="gateway, new items",
    ),
    Contender("gateway, a read and a bid", "api_gateway", requests=read_and_bid_requests, counts="answered"),
)


@dataclass(frozen=True, slots=True)
class Result:
    """One run: rates per second, `rate` the contender's own; ``busy`` is the share of its core that the server
    used, ``cpu_us`` its CPU per request."""

    rate: float
    accepted: float
    answered: float
    failed: int
    busy: float
    cpu_us: float
    p50_ms: float
    p99_ms: float


def _result(contender: Contender, tally: Tally, took_s: float, cpu_s: float) -> Result:
    ordered = sorted(tally.latencies_s) or [0.0]
    counted = tally.accepted if contender.counts == "accepted" else tally.accepted + tally.refused
    return Result(
        rate=counted / took_s,
        accepted=tally.accepted / took_s,
        answered=tally.answered / took_s,
        failed=tally.failed,
        busy=cpu_s / took_s,
        cpu_us=cpu_s / max(1, tally.answered) * 1e6,
        p50_ms=ordered[len(ordered) // 2] * 1e3,
        p99_ms=ordered[int(len(ordered) * 0.99)] * 1e3,
    )


@contextlib.contextmanager
def served(module: str, env: dict[str, str], port: int, *, apart: bool = True) -> Iterator[psutil.Process]:
    """The module as a process, on the servers' core if it is to be ``apart``, until it answers; ended afterwards."""
    process = subprocess.Popen([sys.executable, "-m", module], env=env, stderr=subprocess.DEVNULL)
    try:
        if apart:
            with contextlib.suppress(AttributeError, OSError):
                os.sched_setaffinity(process.pid, {SERVER_CORE})
        _wait_until_ready(f"http://127.0.0.1:{port}/ready", process)
        yield psutil.Process(process.pid)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait_until_ready(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise click.ClickException(f"the server ended with code {process.returncode} before it was ready")
        try:
            with urllib.request.urlopen(url, timeout=1):
                return
        except urllib.error.HTTPError as error:
            if error.code != 503:
                return  # the other contenders have no such page, but they answer
        except OSError:
            pass
        time.sleep(0.05)
    raise click.ClickException(f"{url} did not become ready")


@contextlib.contextmanager
def cores_apart() -> Iterator[None]:
    """While the block runs, this process and all that it starts stay off the contenders' core."""
    if not hasattr(os, "sched_setaffinity") or len(os.sched_getaffinity(0)) == 1:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, before - {SERVER_CORE})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def measure(contender: Contender, stack: Stack, *, run: int, connections: int, seconds: float) -> Result:
    """One run of a contender, on items of its own: ``run`` numbers the runs on a stack. Within :func:`cores_apart`."""
    env = stack.service_env | {"OPEN_CATALOGUE": "true", "LOG_LEVEL": "ERROR", "BID_ACK": contender.ack}
    env |= contender.settings
    port = stack.ports.gateway
    item_ids = [f"bench-{run}-{number}" for number in range(contender.items)]
    with contextlib.ExitStack() as serving:
        servers = [
            serving.enter_context(served(contender.module, env | own, int(own.get("GATEWAY_OWN_PORT", port))))
            for own in _own_ports(contender.processes)
        ]

        def cpu_s() -> float:
            times = [server.cpu_times() for server in servers]
            return float(sum(each.user + each.system for each in times))

        tally, took_s, used_s = uvloop.run(
            load(
                port,
                contender.traffic(item_ids),
                connections=contender.connections or connections,
                in_flight=contender.in_flight,
                warm_up_s=contender.warm_up_s,
                measure_s=seconds,
                cpu_s=cpu_s,
                sample_every=contender.sample_every,
            )
        )
    return _result(contender, tally, took_s, used_s)


def _own_ports(processes: int) -> list[dict[str, str]]:
    """What each of several gateways that share a port has of its own."""
    if processes == 1:
        return [{}]
    ports = free_ports(processes)
    return [{"GATEWAY_REUSE_PORT": "true", "GATEWAY_OWN_PORT": str(port)} for port in ports]


def spread(values: list[float]) -> str:
    """The smallest and the largest."""
    return f"{min(values):,.0f}-{max(values):,.0f}"


def _report(results: dict[str, list[Result]]) -> None:
    echo = results[CONTENDERS[0].name]
    idiomatic = results[CONTENDERS[1].name]
    click.echo()
    head = f"{'':34}{'rate/s':>11}{'spread':>17}{'of echo':>9}{'x idiom.':>10}{'core':>6}{'µs/req':>8}"
    click.echo(head + f"{'p50 ms':>8}{'p99 ms':>8}{'refused':>9}{'failed':>8}")
    for name, runs in results.items():
        rates = [run.rate for run in runs]
        of_echo = statistics.median(run.rate / base.rate for run, base in zip(runs, echo, strict=True))
        times = statistics.median(run.rate / base.rate for run, base in zip(runs, idiomatic, strict=True))
        refused = statistics.median(1 - run.accepted / run.answered for run in runs)
        click.echo(
            f"{name:34}{statistics.median(rates):>11,.0f}{spread(rates):>17}{of_echo:>9.2f}{times:>10.2f}"
            f"{statistics.median(run.busy for run in runs):>6.0%}"
            f"{statistics.median(run.cpu_us for run in runs):>8.1f}"
            f"{statistics.median(run.p50_ms for run in runs):>8.1f}"
            f"{statistics.median(run.p99_ms for run in runs):>8.1f}"
            f"{refused:>9.1%}{sum(run.failed for run in runs):>8}"
        )
    for contender in CONTENDERS:
        if contender.beside in results and contender.name in results:
            pairs = zip(results[contender.name], results[contender.beside], strict=True)
            ratios = [run.rate / base.rate for run, base in pairs]
            told = f"{min(ratios):.2f}-{max(ratios):.2f}"
            click.echo(f"{contender.name}: {statistics.median(ratios):.2f} ({told}) of {contender.beside}")


def bench_gateway(*, rounds: int, seconds: float, connections: int, only: str) -> dict[str, list[Result]]:
    """Run all contenders in ``rounds`` interleaved rounds and print the table."""
    contenders = [one for one in CONTENDERS if only in one.name or one.module != "api_gateway"]
    results: dict[str, list[Result]] = {contender.name: [] for contender in contenders}
    # Redis, NATS and the client share the other cores.
    with cores_apart(), tempfile.TemporaryDirectory(prefix="bidding-bench-") as directory:
        stacks = {
            fsync: Stack(
                Path(directory) / fsync, ports=Ports.free(), services=(), migrate=True, redis_appendfsync=fsync
            )
            for fsync in {contender.fsync for contender in contenders}
        }
        try:
            for stack in stacks.values():
                asyncio.run(stack.start())
            for number in range(rounds):
                for index, contender in enumerate(contenders):
                    run = number * len(contenders) + index
                    stack = stacks[contender.fsync]
                    result = measure(contender, stack, run=run, connections=connections, seconds=seconds)
                    results[contender.name].append(result)
                    click.echo(
                        f"round {number + 1}/{rounds}  {contender.name:34}{result.rate:>9,.0f} {contender.counts}/s"
                        f"  core {result.busy:.0%}"
                    )
        finally:
            for stack in stacks.values():
                asyncio.run(stack.stop())
    _report(results)
    return results
