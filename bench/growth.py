"""What a bid costs when much is there already: with 1 to a million items in Redis, and on an item with ever more bids.

The items are copies of one that the gateway has opened, so they take what real ones take. The outbox is trimmed all the
time, as an archive that keeps up does it.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click
import uvloop
from redis.asyncio import Redis

from bench.clients.closed_loop import bid_requests, load
from bench.gateway import cores_apart, served
from infrastructure.local.servers.ports import Ports
from infrastructure.local.stack import Stack
from shared import names
from shared.redis_layout.cursors import ask_fields
from shared.redis_layout.keys import accepted_key, bidders_key, cursors_key, item_key, outbox_key, recent_key

_CONNECTIONS: Final = 128
_BID_ON: Final = 1_000
"""Items that are bid on, of those that are there."""
_COPIES_AT_ONCE: Final = 1_000
_TRIM_EVERY_S: Final = 0.1
_PATTERN: Final = "grown-0"


@dataclass(frozen=True, slots=True)
class Step:
    """Bids a second, their latencies, and bytes of Redis for each item or for the item."""

    size: int
    rate: float
    p50_ms: float
    p99_ms: float
    memory_bytes: int


async def _trim(redis: Redis) -> None:
    """Until cancelled: the outbox is archived as soon as it is published."""
    while True:
        pipeline = redis.pipeline(transaction=False)
        for shard in names.SHARDS:
            ask_fields(pipeline, shard, "published")
        published = [entry for (entry,) in await pipeline.execute()]
        pipeline = redis.pipeline(transaction=False)
        for shard, entry in zip(names.SHARDS, published, strict=True):
            if entry is not None:
                pipeline.hset(cursors_key(shard), "archived", entry)
                pipeline.xtrim(outbox_key(shard), minid=f"{int(entry) + 1}-0", approximate=False)
        await pipeline.execute()
        await asyncio.sleep(_TRIM_EVERY_S)


@contextlib.asynccontextmanager
async def trimmed(url: str) -> AsyncIterator[Redis]:
    """The Redis at ``url``, whose outbox is trimmed meanwhile as an archive that keeps up does it."""
    async with Redis.from_url(url) as redis:
        trimming = asyncio.create_task(_trim(redis))
        try:
            yield redis
        finally:
            trimming.cancel()
            await asyncio.wait([trimming])


async def _copy(redis: Redis, numbers: range) -> None:
    """Items with these numbers, like the first one."""
    hash_fields: Any = await redis.hgetall(item_key(_PATTERN))
    # Only its first event is copied: on most items nobody bids.
    created: Any = await redis.lindex(recent_key(_PATTERN), -1)
    for begin in range(numbers.start, numbers.stop, _COPIES_AT_ONCE):
        pipeline = redis.pipeline(transaction=False)
        for number in range(begin, min(begin + _COPIES_AT_ONCE, numbers.stop)):
            item_id = f"grown-{number}"
            pipeline.hset(item_key(item_id), mapping={**hash_fields, b"id": item_id})
            pipeline.rpush(recent_key(item_id), created)
        await pipeline.execute()


async def _measured(
    port: int, requests: Iterator[bytes], *, seconds: float, warm_up_s: float
) -> tuple[float, list[float]]:
    tally, took_s, _ = await load(
        port, requests, connections=_CONNECTIONS, warm_up_s=warm_up_s, measure_s=seconds, cpu_s=lambda: 0.0
    )
    return tally.accepted / took_s, sorted(tally.latencies_s)


async def _used(redis: Redis) -> int:
    info: Any = await redis.info("memory")
    return int(info["used_memory"])


async def _items(port: int, url: str, *, seconds: float, items_max: int) -> list[Step]:
    steps: list[Step] = []
    async with trimmed(url) as redis:
        await _measured(port, bid_requests([_PATTERN], keyed=False), seconds=0.1, warm_up_s=0.5)
        there, base = 1, await _used(redis)
        for number, size in enumerate((1, 1_000, 10_000, 100_000, 1_000_000), start=1):
            if size > items_max:
                break
            began_s = time.perf_counter()
            await _copy(redis, range(there, size))
            there = max(there, size)
            memory = (await _used(redis) - base) // max(1, there - 1) if there > 1 else 0
            ids = random.Random(size).sample([f"grown-{number}" for number in range(there)], min(there, _BID_ON))
            # Above the price that the first item had when it was copied.
            requests = bid_requests(ids, keyed=False, start_minor=number * 10**7)
            rate, latencies = await _measured(port, requests, seconds=seconds, warm_up_s=2.0)
            steps.append(_step(size, rate, latencies, memory))
            click.echo(f"  {size:>9,} items: {rate:>8,.0f} bids/s  ({time.perf_counter() - began_s:.0f} s)")
    return steps


async def _bids(port: int, url: str, *, bids_max: int) -> list[Step]:
    steps: list[Step] = []
    item_id = "grows"
    requests = bid_requests([item_id], keyed=False)
    async with trimmed(url) as redis:
        there, wanted = 0, 1_000
        while wanted <= bids_max:
            rate, latencies = 0.0, [0.0]
            while there < wanted:
                rate, latencies = await _measured(port, requests, seconds=2.0, warm_up_s=0.2)
                there = int(await redis.hget(item_key(item_id), "bid_count") or 0)
            keys = (item_key, recent_key, accepted_key, bidders_key)
            memory = sum([int(await redis.memory_usage(key(item_id), samples=0) or 0) for key in keys])
            steps.append(_step(there, rate, latencies, memory))
            click.echo(f"  {there:>9,} bids on the item: {rate:>8,.0f} bids/s")
            while wanted <= there:
                wanted *= 10
    return steps


def _step(size: int, rate: float, latencies: list[float], memory: int) -> Step:
    ordered = latencies or [0.0]
    p50_ms, p99_ms = ordered[len(ordered) // 2] * 1e3, ordered[int(len(ordered) * 0.99)] * 1e3
    return Step(size, rate, p50_ms, p99_ms, memory)


def bench_growth(*, seconds: float, items_max: int, bids_max: int) -> tuple[list[Step], list[Step]]:
    """Both curves, of one run; prints them."""
    with cores_apart(), tempfile.TemporaryDirectory(prefix="bidding-bench-") as directory:
        stack = Stack(Path(directory), ports=Ports.free(), services=(), migrate=True, redis_appendfsync="everysec")
        try:
            asyncio.run(stack.start())
            env = stack.service_env | {"OPEN_CATALOGUE": "true", "LOG_LEVEL": "ERROR"}
            port, url = stack.ports.gateway, stack.urls.redis_url
            with served("api_gateway", env, port):
                items = uvloop.run(_items(port, url, seconds=seconds, items_max=items_max))
                bids = uvloop.run(_bids(port, url, bids_max=bids_max))
        finally:
            asyncio.run(stack.stop())
    click.echo(f"\n{'items in Redis':>16}{'bids/s':>10}{'p50 ms':>9}{'p99 ms':>9}{'bytes each':>13}")
    for step in items:
        click.echo(f"{step.size:>16,}{step.rate:>10,.0f}{step.p50_ms:>9.1f}{step.p99_ms:>9.1f}{step.memory_bytes:>13,}")
    click.echo(f"\n{'bids on one item':>16}{'bids/s':>10}{'p50 ms':>9}{'p99 ms':>9}{'bytes of it':>13}")
    for step in bids:
        click.echo(f"{step.size:>16,}{step.rate:>10,.0f}{step.p50_ms:>9.1f}{step.p99_ms:>9.1f}{step.memory_bytes:>13,}")
    return items, bids
