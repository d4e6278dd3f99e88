"""The history page on a real Redis whose outbox is longer than one page of it."""

from __future__ import annotations

from typing import Any, cast
from urllib.parse import urlsplit

import pytest
from redis.asyncio import Redis

from api_gateway.reads.archive import Archive
from api_gateway.reads.history import History
from shared.archive_reads.history import ArchivedBid
from shared.clients.redis import open_redis
from shared.messages import encode_event
from shared.names import shard_of
from shared.redis_layout.keys import outbox_key, recent_key
from tests.bids import nth_bid

pytestmark = pytest.mark.integration

ITEM, OTHER = "page-lot", "page-other"
ENTRIES = 600
"""More than two of its pages; each has two events of the item, and comes beside one of another item."""
RECENT = 5


class NothingArchived:
    """PostgreSQL knows the item's creation and none of its bids: the worker has been away."""

    async def version(self, item_id: str) -> tuple[int, int]:
        return (1, 0)

    async def bids(self, item_id: str, *, before: Any, limit: int) -> list[ArchivedBid]:
        return []


async def _fill(redis: Redis) -> None:
    pipeline = redis.pipeline(transaction=False)
    for entry in range(ENTRIES):
        seqs = (2 * entry + 1, 2 * entry + 2)
        for item_id, events in ((ITEM, seqs), (OTHER, (entry + 1,))):
            texts = b",".join(encode_event(nth_bid(item_id, seq)) for seq in events)
            pipeline.xadd(outbox_key(shard_of(ITEM)), {"item": item_id, "events": b"[" + texts + b"]"})
    for seq in range(2 * ENTRIES - RECENT + 1, 2 * ENTRIES + 1):
        pipeline.lpush(recent_key(ITEM), encode_event(nth_bid(ITEM, seq)))
    await pipeline.execute()


async def test_all_pages_of_the_outbox_are_in_the_history(redis_url: str) -> None:
    # A database of its own: no script and no other test may find these entries.
    redis = open_redis(urlsplit(redis_url)._replace(path="/15").geturl(), timeout_s=10)
    try:
        await _fill(redis)
        history = History(redis, cast(Archive, NothingArchived()))
        seen: list[int] = []
        cursor: str | None = None
        while True:
            page = await history.page(ITEM, cursor=cursor, limit=200)
            seen += [bid.seq for bid in page.bids]
            cursor = page.next_cursor
            if cursor is None:
                break
        assert seen == list(range(2 * ENTRIES, 0, -1))
    finally:
        await redis.flushdb()
        await redis.aclose()
