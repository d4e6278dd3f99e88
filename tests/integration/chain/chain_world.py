"""A database with a chainer that is called step by step, for tests of the chain, its audit and the exports."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import asyncpg

from archival_worker.chain.audit import audit
from archival_worker.chain.chainer import Chainer, ChainOptions
from archival_worker.chain.report import AuditReport
from archival_worker.metrics import Metrics
from archival_worker.store.archive import Archive, Stored
from infrastructure.local.stack import Stack
from shared.clients.postgres import open_postgres
from shared.messages import AnyEvent, Event
from tests.integration.archive.archive_world import migrated_database
from tests.unit.archival_worker.events import bid, closed, created, delivery


@dataclass
class World:
    """A database of the test's own, and what works on it, step by step."""

    url: str
    pool: asyncpg.Pool
    archive: Archive
    chainer: Chainer
    metrics: Metrics
    entries: int = 0

    async def store(self, *events: AnyEvent) -> Stored:
        """Each event as an outbox entry of its own, in one batch."""
        deliveries = []
        for event in events:
            self.entries += 1
            deliveries.append(delivery(self.entries, event))
        stored = await self.archive.store(deliveries)
        self.chainer.offer({event.item_id for event in events})
        return stored

    async def chain(self, chainer: Chainer | None = None) -> int:
        """Extend the chains until nothing is left to do. Returns how many events were added."""
        chainer = chainer or self.chainer
        added = 0
        while chainer.waiting:
            added += await chainer.once()
        return added

    async def value(self, sql: str, *arguments: Any) -> Any:
        return await self.pool.fetchval(sql, *arguments)

    async def tamper(self, sql: str) -> None:
        assert (await self.pool.execute(sql)).rpartition(" ")[2] != "0", "the test changed nothing"

    async def audit(self, item_id: str = "lot-1", page_rows: int = 3) -> AuditReport:
        return await audit(self.url, item_id, page_rows=page_rows)

    async def export_row(self) -> dict[str, Any]:
        row = await self.pool.fetchrow("SELECT * FROM exports ORDER BY epoch DESC, seq DESC LIMIT 1")
        assert row is not None
        return dict(row)


@contextlib.asynccontextmanager
async def chain_world(servers: Stack) -> AsyncIterator[World]:
    """A database of its own on the shared servers, migrated."""
    url = await migrated_database(servers)
    pool = await open_postgres(url, name="test", timeout_s=10)
    metrics = Metrics()
    # Small bounds, so that a few events take several transactions.
    options = ChainOptions(rows_max=4, items_max=2, window=2, linger_s=0, gap_alarm_s=0)
    yield World(url, pool, Archive(pool), Chainer(pool, metrics, options), metrics)
    pool.terminate()


def auction(item_id: str = "lot-1", bids: int = 5) -> list[Event]:
    placed = [bid(item_id, seq) for seq in range(1, bids + 1)]
    return [created(item_id, name="A clock, “ticking” \U0001f570\n\x01"), *placed, closed(item_id, bids + 1)]
