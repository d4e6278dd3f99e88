"""Gets per second of the read cache: kept here, over a peer, and straight from PostgreSQL, beside a plain dict.

One process reads, with as many gets at a time as it has readers; the peer is a process on a core of its own, and so is
PostgreSQL. *dict* is the limit: a look-up within the same loop of tasks, without a cache. *peer, unary* asks the same
node one key per call, which is what coalescing saves. Mirrors are off, else the peer would be asked next to nothing.

Two figures for each: per second, and per second of CPU time of all the processes of ours that took part (reader and
node). PostgreSQL's own time is not in it.

Then closed items over HTTP, from a node and from a gateway (:mod:`bench.cache.over_http`).
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Final

import asyncpg
import click
import psutil
import uvloop

from bench.cache import over_http
from bench.cache.closed_items import add_closed_items
from bench.cache.result import CacheResult
from bench.gateway import SERVER_CORE, cores_apart, spread
from infrastructure.local.servers.ports import HOST, Ports, free_ports
from infrastructure.local.stack import Stack
from load_tests.generator.samples import percentiles_ms
from shared.read_cache.cache import GroupSpec
from shared.read_cache.groups.group import GroupLimits
from shared.read_cache.opening import open_read_cache
from shared.read_cache.peers import cache_pb2 as pb
from shared.read_cache.peers.wire import SERVICE, open_channel
from shared.read_cache.settings import ReadCacheSettings

KEYS: Final = 5_000
VALUE_BYTES: Final = 400
READERS: Final = 256
CONNECTIONS: Final = 8
PLAIN: Final = "dict"
DIRECT: Final = "PostgreSQL"
NAMES: Final = (PLAIN, "local", "peer", "peer, unary", DIRECT, *over_http.NAMES)
YARDSTICKS: Final = (PLAIN, DIRECT)
_START_S: Final = 30.0
_SAMPLE_EVERY: Final = 16

Get = Callable[[str], Awaitable[bytes | None]]


async def _load_with(get: Get, *, readers: int, seconds: float, node: psutil.Process | None) -> CacheResult:
    """``readers`` tasks, each with one get at a time, over all keys in turn."""
    keys = [f"items/lot-{number}" for number in range(KEYS)]
    for at in range(0, KEYS, READERS):
        await asyncio.gather(*map(get, keys[at : at + READERS]))
    samples: list[float] = []
    counts = [0] * readers
    ends_s = time.perf_counter() + seconds

    async def read(reader: int) -> None:
        at, done = reader * 7919, 0
        clock = time.perf_counter
        while True:
            began_s = clock()
            if began_s >= ends_s:
                break
            for _ in range(_SAMPLE_EVERY - 1):
                await get(keys[at % KEYS])
                at += 1
            last_s = clock()
            await get(keys[at % KEYS])
            at += 1
            samples.append(clock() - last_s)
            done += _SAMPLE_EVERY
            # A get that is answered at once does not let the others run.
            await asyncio.sleep(0)
        counts[reader] = done

    def used_s() -> float:
        total = time.process_time()
        if node is not None:
            times = node.cpu_times()
            total += times.user + times.system
        return total

    began_s, used_before_s = time.perf_counter(), used_s()
    await asyncio.gather(*map(read, range(readers)))
    took_s, took_cpu_s = time.perf_counter() - began_s, used_s() - used_before_s
    found = percentiles_ms(samples)
    return CacheResult(sum(counts) / took_s, sum(counts) / took_cpu_s, found["p50"], found["p99"])


@contextlib.contextmanager
def _peer() -> Iterator[tuple[str, psutil.Process]]:
    """The list of nodes, of which there is one, and its process."""
    (port,) = free_ports(1)
    nodes = f"node={HOST}:{port}"
    command = [sys.executable, "-m", "bench.cache.peer", "node", nodes, str(VALUE_BYTES)]
    process = subprocess.Popen(command)
    with contextlib.suppress(AttributeError):
        os.sched_setaffinity(process.pid, {SERVER_CORE})
    try:
        yield nodes, psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(timeout=20)


@contextlib.asynccontextmanager
async def _coalesced(nodes: str) -> AsyncIterator[Get]:
    async def load(key: str) -> bytes:
        raise click.ClickException("the peer did not answer, and the benchmark measured something else")

    settings = ReadCacheSettings(
        read_cache="cluster",
        read_cache_membership="static",
        read_cache_nodes=nodes,
        # The reader shares its core with whatever else the machine does.
        read_cache_peer_timeout_ms=5_000,
    )
    await _reached(nodes)
    spec = GroupSpec("items", load, GroupLimits(mirror_ttl_s=0))
    async with open_read_cache(settings, [spec]) as cache:
        # Its first look at the list.
        await asyncio.sleep(0.1)
        yield cache["items"].get


async def _reached(nodes: str) -> None:
    async with open_channel(nodes.partition("=")[2], None) as channel, asyncio.timeout(_START_S):
        await channel.channel_ready()


@contextlib.asynccontextmanager
async def _unary(nodes: str) -> AsyncIterator[Get]:
    await _reached(nodes)
    async with open_channel(nodes.partition("=")[2], None) as channel:
        call = channel.unary_unary(
            f"/{SERVICE}/Get", request_serializer=pb.Ask.SerializeToString, response_deserializer=pb.Answer.FromString
        )

        async def get(key: str) -> bytes:
            answer = await call(pb.Ask(group="items", first=1, keys=[key], forwarded=True), timeout=10)
            if list(answer.states) != [pb.FOUND]:
                raise click.ClickException(f"the peer answered {list(answer.states)}")
            return answer.values[0]

        yield get


@contextlib.asynccontextmanager
async def _local() -> AsyncIterator[Get]:
    value = bytes(VALUE_BYTES)

    async def load(key: str) -> bytes:
        return value

    async with open_read_cache(ReadCacheSettings(read_cache="local"), [GroupSpec("items", load)]) as cache:
        yield cache["items"].get


@contextlib.asynccontextmanager
async def _plain() -> AsyncIterator[Get]:
    kept = {f"items/lot-{number}": bytes(VALUE_BYTES) for number in range(KEYS)}

    async def get(key: str) -> bytes | None:
        return kept.get(key)

    yield get


@contextlib.asynccontextmanager
async def _direct(url: str) -> AsyncIterator[Get]:
    async with asyncpg.create_pool(url, min_size=CONNECTIONS, max_size=CONNECTIONS) as pool:
        query = "SELECT body FROM bench_rows WHERE key = $1"

        async def get(key: str) -> bytes | None:
            found: bytes | None = await pool.fetchval(query, key)
            return found

        yield get


async def _fill(url: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("DROP TABLE IF EXISTS bench_rows")
        await connection.execute("CREATE TABLE bench_rows (key text PRIMARY KEY, body bytea NOT NULL)")
        rows = [(f"items/lot-{number}", bytes(VALUE_BYTES)) for number in range(KEYS)]
        await connection.copy_records_to_table("bench_rows", records=rows)
        await connection.execute("VACUUM ANALYZE bench_rows")
    finally:
        await connection.close()


def _measure(name: str, stack: Stack, *, readers: int, seconds: float) -> CacheResult:
    async def run(
        opened: contextlib.AbstractAsyncContextManager[Get], node: psutil.Process | None = None
    ) -> CacheResult:
        async with opened as get:
            return await _load_with(get, readers=readers, seconds=seconds, node=node)

    if name in over_http.NAMES:
        return over_http.measure(name, stack, seconds=seconds)
    if name == PLAIN:
        return uvloop.run(run(_plain()))
    if name == "local":
        return uvloop.run(run(_local()))
    if name == DIRECT:
        return uvloop.run(run(_direct(stack.urls.postgres_url)))
    with _peer() as (nodes, node):
        return uvloop.run(run(_coalesced(nodes) if name == "peer" else _unary(nodes), node))


def _report(results: dict[str, list[CacheResult]]) -> None:
    direct, plain = results[DIRECT], results[PLAIN]
    head = f"{'':16}{'gets/s':>11}{'spread':>21}{'per core':>11}{'of PostgreSQL':>15}{'of dict':>9}"
    click.echo("\n" + head + f"{'p50 ms':>9}{'p99 ms':>9}")
    for name, runs in results.items():
        rates = [run.rate for run in runs]
        per_core = statistics.median(run.per_core for run in runs)
        to_direct = statistics.median(run.rate / one.rate for run, one in zip(runs, direct, strict=True))
        to_plain = statistics.median(run.rate / one.rate for run, one in zip(runs, plain, strict=True))
        p50_ms = statistics.median(run.p50_ms for run in runs)
        p99_ms = statistics.median(run.p99_ms for run in runs)
        click.echo(
            f"{name:16}{statistics.median(rates):>11,.0f}{spread(rates):>21}{per_core:>11,.0f}"
            f"{to_direct:>15.2f}{to_plain:>9.3f}{p50_ms:>9.3f}{p99_ms:>9.3f}"
        )


def _report_gateways(results: dict[str, list[CacheResult]]) -> None:
    """What a cache gains for clients that read through the gateway."""
    without = results.get(over_http.GATEWAY_OFF, [])
    for name in (over_http.GATEWAY_LOCAL, over_http.GATEWAY_CLUSTER):
        if without and name in results:
            times = statistics.median(run.rate / one.rate for run, one in zip(results[name], without, strict=True))
            click.echo(f"{name}: {times:.1f} times as many a second as {over_http.GATEWAY_OFF}")


def bench_cache(*, rounds: int, seconds: float, only: str, readers: int = READERS) -> dict[str, list[CacheResult]]:
    """Run the contenders whose name contains ``only``, and the yardsticks, in interleaved rounds; print the table."""
    click.echo(f"\nRead cache: {readers} readers, {KEYS:,} keys with {VALUE_BYTES} bytes each")
    names = [name for name in NAMES if only in name or name in YARDSTICKS]
    results: dict[str, list[CacheResult]] = {name: [] for name in names}
    with cores_apart(), tempfile.TemporaryDirectory(prefix="bidding-bench-") as directory:
        # PostgreSQL does not run as root, and has to get into the folder.
        Path(directory).chmod(0o755)
        stack = Stack(Path(directory) / "stack", ports=Ports.free(), services=(), migrate=True)
        try:
            asyncio.run(stack.start())
            asyncio.run(_fill(stack.urls.postgres_url))
            asyncio.run(add_closed_items(stack.urls.postgres_url, over_http.ITEMS))
            # As the services do: the garbage collector need not visit what lives as long as the process.
            gc.freeze()
            gc.set_threshold(50_000, 20, 50)
            for number in range(rounds):
                for name in names:
                    result = _measure(name, stack, readers=readers, seconds=seconds)
                    results[name].append(result)
                    click.echo(
                        f"round {number + 1}/{rounds}  {name:16}{result.rate:>11,.0f} gets/s"
                        f"{result.per_core:>11,.0f} per core  p50 {result.p50_ms:.3f} ms  p99 {result.p99_ms:.3f} ms"
                    )
        finally:
            asyncio.run(stack.stop())
    _report(results)
    _report_gateways(results)
    return results
