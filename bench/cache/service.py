"""Hit rates of three real nodes before a real PostgreSQL full of closed items, beside one LRU with the same memory.

The items are rows of the archive's own schema. Readers draw them from a Zipf distribution and ask the nodes over gRPC,
as gateways do; their mirrors are off, so that all the memory there is is that of the nodes. *LRU* is one store in one
process with as many bytes as the nodes have together, bookkeeping included, over the same draws. The first half of the
draws fills both and is not counted. A node keeps a value for five minutes at most, the LRU for ever: a run that takes
longer says so.

How often PostgreSQL was asked is counted by the nodes, and by PostgreSQL itself over the whole run: both are told.

*Burst*: many ask at once for a key that nobody keeps. *dict* is a cache without singleflight: whoever finds nothing
asks.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import tempfile
import time
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import asyncpg
import click
import uvloop

from bench.cache.closed_items import add_closed_items, item_of, questions
from bench.cache.hits import EXPONENTS, SHARES, zipf_ranks
from infrastructure.local.cache_nodes import CACHE_NODE
from infrastructure.local.servers.ports import HOST, Ports, free_ports
from infrastructure.local.stack import Stack
from shared.archive_cache.reads import groups, keys_of, name_of_group, never_unsettled
from shared.archive_reads.asking import Asking
from shared.archive_reads.keys import item_key
from shared.archive_reads.origin import ArchiveOrigin
from shared.clients.nats import NatsLink
from shared.read_cache.cache import GroupSpec
from shared.read_cache.groups.group import GroupLimits
from shared.read_cache.opening import open_read_cache
from shared.read_cache.settings import ReadCacheSettings
from shared.read_cache.store.base import ENTRY_OVERHEAD_BYTES, Entry
from shared.read_cache.store.lru import LruStore

NODES: Final = 3
READERS: Final = 128
BURST: Final = 1_000
BURSTS: Final = 20
_CONNECTIONS: Final = 8
_READY_S: Final = 60.0
_KEPT_S: Final = 270.0
_NODE_BYTES_LEAST: Final = 1024**2
_SETTINGS: Final = {
    # All processes share the machine: a node that is slow must not count as dead, and drop what it keeps.
    "READ_CACHE_LEASE_S": "30",
    "READ_CACHE_PEER_TIMEOUT_MS": "10000",
    "LOG_LEVEL": "ERROR",
}

Get = Callable[[str], Awaitable[bytes | None]]


@dataclass(frozen=True, slots=True)
class ServiceResult:
    """One run. ``loads`` and ``lru_loads``: questions to PostgreSQL in the counted half; ``all_loads`` those of the
    whole run, as the nodes count them, and ``asked`` as PostgreSQL does."""

    gets: int
    loads: int
    all_loads: int
    asked: int
    lru_loads: int
    took_s: float

    @property
    def hit_rate(self) -> float:
        """The hit rate of the nodes together, 0 to 1."""
        return 1 - self.loads / self.gets

    @property
    def lru_hit_rate(self) -> float:
        """The hit rate of the one LRU, 0 to 1."""
        return 1 - self.lru_loads / self.gets


class Nodes:
    """Three nodes of a stack, and one way to ask them."""

    def __init__(self, stack: Stack, run: str) -> None:
        self._stack = stack
        self._bucket = f"bench_{run}"
        self._names = [f"{run}-{number}" for number in range(NODES)]
        self._http: dict[str, str] = {}

    async def start(self, node_bytes: int) -> None:
        """Return when all three are in the ring and keep values."""
        ports = iter(free_ports(2 * NODES))
        starting = []
        for name in self._names:
            http, grpc = next(ports), next(ports)
            self._http[name] = f"http://{HOST}:{http}"
            env = {
                **_SETTINGS,
                "READ_CACHE_BUCKET": self._bucket,
                "READ_CACHE_BYTES_MAX": str(node_bytes),
                "CACHE_PORT": str(http),
                "CACHE_NODE_PORT": str(grpc),
                "CACHE_NODE_NAME": name,
            }
            starting.append(self._stack.add_service(name, CACHE_NODE, http, env))
        await asyncio.gather(*starting)
        await _until(self._are_in_step)

    async def _are_in_step(self) -> bool:
        return all(told["keeping"] and len(told["nodes"]) == NODES for told in await self._stats())

    async def stop(self) -> None:
        """End the nodes. PostgreSQL then has counted all that their connections have done."""
        await asyncio.gather(*(self._stack.stop_process(name) for name in self._names))

    async def loads(self) -> int:
        """Their questions to PostgreSQL since their start."""
        return sum(told["counts"]["loads"] for told in await self._stats())

    async def _stats(self) -> list[dict[str, Any]]:
        def ask(url: str) -> dict[str, Any]:
            with urllib.request.urlopen(f"{url}/stats", timeout=10) as answer:
                return dict(json.load(answer))

        return await asyncio.gather(*(asyncio.to_thread(ask, url) for url in self._http.values()))

    @contextlib.asynccontextmanager
    async def reader(self) -> AsyncIterator[Get]:
        """A reader that asks the nodes, and never PostgreSQL."""

        async def load(key: str) -> bytes:
            raise click.ClickException(f"no node answered for {key}, and the benchmark measured something else")

        settings = ReadCacheSettings(
            read_cache="cluster",
            read_cache_bucket=self._bucket,
            read_cache_lease_s=float(_SETTINGS["READ_CACHE_LEASE_S"]),
            read_cache_peer_timeout_ms=int(_SETTINGS["READ_CACHE_PEER_TIMEOUT_MS"]),
        )
        nats = NatsLink(self._stack.urls.nats_url, name="bench")
        spec = GroupSpec(name_of_group("items"), load, GroupLimits(mirror_ttl_s=0))
        try:
            async with open_read_cache(settings, [spec], nats=nats) as cache:

                async def sees_all() -> bool:
                    view = cache.cluster.view() if cache.cluster is not None else None
                    return view is not None and len(view.ring) == NODES

                await _until(sees_all)
                yield cache[name_of_group("items")].get
        finally:
            await nats.close()


async def _until(is_so: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(_READY_S):
        while True:
            if await is_so():
                return
            await asyncio.sleep(0.1)


async def _read_all(get: Get, ranks: Iterable[int]) -> None:
    left = iter(ranks)

    async def read() -> None:
        for rank in left:
            if await get(item_key(item_of(rank))) is None:
                raise click.ClickException(f"{item_of(rank)} is not in the archive")

    async with asyncio.TaskGroup() as tasks:
        for _ in range(READERS):
            tasks.create_task(read())


async def _run(stack: Stack, name: str, ranks: Sequence[int], node_bytes: int, entry: Entry) -> ServiceResult:
    url = stack.urls.postgres_url
    half = len(ranks) // 2
    asked_before = await questions(url)
    nodes = Nodes(stack, name)
    await nodes.start(node_bytes)
    try:
        began_s = time.perf_counter()
        async with nodes.reader() as get:
            await _read_all(get, ranks[:half])
            filled = await nodes.loads()
            await _read_all(get, ranks[half:])
        took_s = time.perf_counter() - began_s
        all_loads = await nodes.loads()
    finally:
        await nodes.stop()
    asked = await questions(url) - asked_before
    lru = LruStore(NODES * node_bytes)
    lru_misses = [_misses(lru, part, entry) for part in (ranks[:half], ranks[half:])]
    return ServiceResult(len(ranks) - half, all_loads - filled, all_loads, asked, lru_misses[1], took_s)


def _misses(store: LruStore, ranks: Iterable[int], entry: Entry) -> int:
    missed = 0
    for rank in ranks:
        key = f"{name_of_group('items')}:{item_key(item_of(rank))}"
        if store.get(key) is None:
            missed += 1
            store.put(key, entry)
    return missed


# Bursts


async def _burst(get: Get, key: str) -> None:
    """Ask for the key :data:`BURST` times at once."""
    values = await asyncio.gather(*(get(key) for _ in range(BURST)))
    if None in values or len(set(values)) != 1:
        raise click.ClickException(f"not everybody was given the same value of {key}")


@contextlib.asynccontextmanager
async def _origin(url: str) -> AsyncIterator[ArchiveOrigin]:
    async with asyncpg.create_pool(url, min_size=_CONNECTIONS, max_size=_CONNECTIONS) as pool:
        yield ArchiveOrigin(Asking(pool, timeout_s=60, questions_max=10 * BURST))


@contextlib.asynccontextmanager
async def _without_singleflight(url: str) -> AsyncIterator[Get]:
    kept: dict[str, bytes | None] = {}
    async with _origin(url) as origin:

        async def get(key: str) -> bytes | None:
            if key not in kept:
                kept[key] = await origin.get(key)
            return kept[key]

        yield get


@contextlib.asynccontextmanager
async def _one_process(url: str) -> AsyncIterator[Get]:
    async with (
        _origin(url) as origin,
        open_read_cache(ReadCacheSettings(read_cache="local"), groups(origin, never_unsettled)) as cache,
    ):
        yield cache[name_of_group("items")].get


@contextlib.asynccontextmanager
async def _through_nodes(stack: Stack) -> AsyncIterator[Get]:
    """As many readers as nodes, each of which asks for a part of the burst."""
    nodes = Nodes(stack, "burst")
    await nodes.start(_NODE_BYTES_LEAST)
    try:
        async with contextlib.AsyncExitStack() as readers:
            gets = [await readers.enter_async_context(nodes.reader()) for _ in range(NODES)]
            turn = 0

            async def get(key: str) -> bytes | None:
                nonlocal turn
                turn += 1
                return await gets[turn % NODES](key)

            yield get
    finally:
        await nodes.stop()


async def _bursts(stack: Stack) -> dict[str, int]:
    """Questions that PostgreSQL has answered, by who asked."""
    url = stack.urls.postgres_url
    contenders: Mapping[str, contextlib.AbstractAsyncContextManager[Get]] = {
        "dict, without singleflight": _without_singleflight(url),
        "one process": _one_process(url),
        f"{NODES} nodes": _through_nodes(stack),
    }
    counted: dict[str, int] = {}
    for name, opened in contenders.items():
        before = await questions(url)
        async with opened as get:
            for number in range(BURSTS):
                await _burst(get, item_key(item_of(number)))
        counted[name] = await questions(url) - before
    return counted


def _report_bursts(counted: Mapping[str, int]) -> None:
    click.echo(f"\nBurst: {BURST:,} gets at once of a key that nobody keeps, {BURSTS} times")
    click.echo(f"{'':28}{'questions':>11}{'saved':>9}")
    most = max(counted.values())
    for name, asked in counted.items():
        click.echo(f"{name:28}{asked:>11,}{1 - asked / most:>9.2%}")


def bench_cache_service(*, rows: int, reads: int, seed: int = 1) -> dict[tuple[float, float], ServiceResult]:
    """Fill an archive, run the bursts and all hit rates; prints them as they come."""
    results: dict[tuple[float, float], ServiceResult] = {}
    with tempfile.TemporaryDirectory(prefix="bidding-bench-") as directory:
        # PostgreSQL does not run as root, and has to get into the folder.
        Path(directory).chmod(0o755)
        stack = Stack(Path(directory) / "stack", ports=Ports.free(), services=(), migrate=True)
        try:
            asyncio.run(stack.start())
            url = stack.urls.postgres_url
            took_s = asyncio.run(add_closed_items(url, rows))
            click.echo(f"\nCache service: {rows:,} closed items in PostgreSQL, loaded in {took_s:.0f} s")
            _report_bursts(uvloop.run(_bursts(stack)))
            value_bytes = uvloop.run(_typical_bytes(url, rows))
            entry: Entry = (bytes(value_bytes), 1e12, 0)
            entry_bytes = ENTRY_OVERHEAD_BYTES + value_bytes + len(f"{name_of_group('items')}:{keys_of(item_of(0))[0]}")
            _head(reads, value_bytes)
            for exponent in EXPONENTS:
                ranks = zipf_ranks(rows, reads, exponent, seed)
                for share in SHARES:
                    node_bytes = int(share * rows * entry_bytes / NODES)
                    if node_bytes < _NODE_BYTES_LEAST:
                        click.echo(
                            f"{exponent:>4}{share:>8.0%}   left out: a node has a MiB at least; ask for more --rows"
                        )
                        continue
                    name = f"s{exponent * 10:.0f}-{share * 100:.0f}"
                    result = uvloop.run(_run(stack, name, ranks, node_bytes, entry))
                    results[exponent, share] = result
                    _line(exponent, share, node_bytes, result)
        finally:
            asyncio.run(stack.stop())
    return results


async def _typical_bytes(url: str, rows: int) -> int:
    async with _origin(url) as origin:
        values = [await origin.get(item_key(item_of(rank))) for rank in range(0, rows, max(1, rows // 100))]
    return sum(len(value or b"") for value in values) // len(values)


def _head(reads: int, value_bytes: int) -> None:
    click.echo(
        f"\n{reads:,} Zipf-distributed gets of items with {value_bytes} bytes, the second half counts, through "
        f"{NODES} nodes;\nmemory as a share of what all rows would take"
    )
    head = f"{'s':>4}{'memory':>8}{'per node':>11}{f'{NODES} nodes':>10}{'LRU':>8}{'questions':>11}{'of LRU':>9}"
    click.echo(f"{head}{'all, nodes':>12}{'PostgreSQL':>12}{'gets/s':>9}")


def _line(exponent: float, share: float, node_bytes: int, result: ServiceResult) -> None:
    slow = "  (took so long that values expired)" if result.took_s > _KEPT_S else ""
    click.echo(
        f"{exponent:>4}{share:>8.0%}{node_bytes / 1024**2:>7.1f} MiB{result.hit_rate:>10.4f}{result.lru_hit_rate:>8.4f}"
        f"{result.loads:>11,}{result.lru_loads:>9,}{result.all_loads:>12,}{result.asked:>12,}"
        f"{2 * result.gets / result.took_s:>9,.0f}{slow}"
    )
