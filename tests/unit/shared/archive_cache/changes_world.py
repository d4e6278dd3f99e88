"""An archive that is behind the stream, and a cache that hears of the stream: for tests of what may be kept."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from shared import names
from shared.archive_cache.changes import Changes
from shared.archive_cache.progress import Head, Progress
from shared.archive_cache.reads import CachedReads, groups
from shared.clients.nats import StreamUnavailable
from shared.messages import BidVoided, encode_event, frame_batch
from shared.read_cache.cache import ReadCache
from shared.read_cache.opening import open_read_cache
from shared.read_cache.settings import ReadCacheSettings
from tests.waiting import eventually

STATE: dict[str, Any] = {
    "item_id": "lot",
    "epoch": 1,
    "seq": 3,
    "ts_us": 1,
    "current_bid": 1,
    "highest_bidder_id": "ann",
    "bid_count": 1,
    "min_next_bid": 2,
    "status": "open",
    "end_us": None,
    "reserve_met": True,
    "currency": "USD",
}
BID: dict[str, Any] = {"bid_id": "b", "user_id": "ann", "kind": "bid", "amount": 1, "previous_bid": 0}
VOID: dict[str, Any] = {
    "bid_id": "b",
    "voided_seq": 1,
    "bidder_id": "ann",
    "amount": 1,
    "previous_bid": 1,
    "offered_to": None,
    "reason": "a test",
    "by": "op",
}


def message(event: Any) -> bytes:
    return frame_batch(names.shard_of(event.item_id), 1, 1, event.item_id, b"[" + encode_event(event) + b"]")


def void(status: str = "unsold", item_id: str = "lot") -> bytes:
    return message(BidVoided(**STATE | VOID | {"status": status, "item_id": item_id}))


class Archive:
    """Tells ``value`` of every key, and how far it is."""

    def __init__(self) -> None:
        self.value: bytes | None = b"before"
        self.asked: list[str] = []
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.progress = Progress(5, 5, 8)
        self.is_away = False
        self.heads = 0

    async def get(self, key: str) -> bytes | None:
        self.asked.append(key)
        value = self.value
        await self.may_answer.wait()
        return value

    async def ask(self) -> Progress:
        if self.is_away:
            raise StreamUnavailable("away")
        return self.progress

    async def head(self) -> Head:
        self.heads += 1
        progress = await self.ask()
        return Head(progress.last, progress.stream)


class World:
    def __init__(self, archive: Archive) -> None:
        self.archive = archive
        self.now_s = 0.0
        self.sequence = 0
        self.changes = Changes(archive, clock=lambda: self.now_s)
        self.cache: ReadCache
        self.reads: CachedReads

    def hear(self, data: bytes, item_id: str = "lot") -> None:
        self.changes.on_message(names.subject_of(item_id), data)

    async def in_step(self) -> None:
        await eventually(lambda: self.changes.is_keeping)

    async def settled(self) -> None:
        await eventually(lambda: not self.changes.unsettled)

    async def kept(self, key: str) -> bool:
        """Whether the second of two gets needs no question."""
        await self.reads.get(key)
        before = len(self.archive.asked)
        await self.reads.get(key)
        return len(self.archive.asked) == before


@asynccontextmanager
async def world() -> AsyncIterator[World]:
    made = World(Archive())
    specs = groups(made.archive, made.changes.is_unsettled)
    async with open_read_cache(ReadCacheSettings(read_cache="local"), specs) as cache:
        made.cache = cache
        made.changes.attach(cache)
        made.reads = CachedReads(cache, made.archive, before_get=made.changes.check)
        task = asyncio.create_task(made.changes.settle())
        try:
            yield made
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
