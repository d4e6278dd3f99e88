"""How long pages of the catalogue and of histories take in a full archive: what the test of plans looks at, in time."""

from __future__ import annotations

import asyncio
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import asyncpg
import click

from bench.full_archive import LONG, fill
from infrastructure.local.servers.ports import Ports
from infrastructure.local.stack import Stack
from shared.archive_reads.asking import Asking
from shared.archive_reads.catalogue import Sort, catalogue_page
from shared.archive_reads.history import archived_bids
from shared.archive_reads.origin import closed_items
from shared.clients.postgres import open_postgres

_TIMES: Final = 31
_SORTS: Final[tuple[Sort, ...]] = ("newest", "ending", "price")

Ask = Callable[[Asking], Awaitable[Any]]


async def _page(asking: Asking, sort: Sort, status: str | None, *, pages: int) -> None:
    """The page after some others."""
    cursor = None
    for _ in range(pages):
        cursor = (await catalogue_page(asking, status=status, sort=sort, cursor=cursor, limit=50)).next_cursor


def _questions(bids: int) -> dict[str, Ask]:
    def first(sort: Sort, status: str | None) -> Ask:
        return lambda asking: _page(asking, sort, status, pages=1)

    found: dict[str, Ask] = {
        f"catalogue, {sort}, {status or 'any status'}": first(sort, status)
        for sort in _SORTS
        for status in (None, "open")
    }
    return found | {
        "20 pages by end, one after the other": lambda asking: _page(asking, "ending", "open", pages=20),
        "the newest 50 bids": lambda asking: archived_bids(asking.fetch, LONG, before=None, limit=51),
        "50 bids in the middle": lambda asking: archived_bids(asking.fetch, LONG, before=(1, bids // 2), limit=51),
        "a closed item": lambda asking: closed_items(asking.fetch, [LONG]),
    }


async def _measure(stack: Stack, *, items: int, bids: int) -> dict[str, float]:
    connection = await asyncpg.connect(stack.urls.postgres_url)
    began_s = time.perf_counter()
    await fill(connection, items=items, bids=bids)
    await connection.close()
    click.echo(f"{items:,} items and {bids:,} bids of one of them, filled in {time.perf_counter() - began_s:.0f} s")
    pool = await open_postgres(stack.urls.postgres_url, name="bench")
    medians: dict[str, float] = {}
    try:
        asking = Asking(pool, timeout_s=30)
        for name, ask in _questions(bids).items():
            took_ms = []
            for _ in range(_TIMES):
                began_s = time.perf_counter()
                await ask(asking)
                took_ms.append((time.perf_counter() - began_s) * 1_000)
            medians[name] = statistics.median(took_ms)
            click.echo(f"{name:44}{medians[name]:>9.2f} ms, at most {max(took_ms):.1f}")
    finally:
        await pool.close()
    return medians


def bench_catalogue(*, items: int, bids: int) -> dict[str, float]:
    """Fill an archive, and print how long each question takes; returns the medians in milliseconds."""
    with tempfile.TemporaryDirectory(prefix="bidding-bench-") as directory:
        stack = Stack(Path(directory), ports=Ports.free(), services=(), migrate=True)
        try:
            asyncio.run(stack.start())
            return asyncio.run(_measure(stack, items=items, bids=bids))
        finally:
            asyncio.run(stack.stop())
