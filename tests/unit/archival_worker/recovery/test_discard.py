"""What of a closed shard is removed, without a network."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any, cast

from archival_worker.recovery.closed_shards import ClosedShards
from shared.redis_layout.keys import (
    REVOCATIONS_KEY,
    cursors_key,
    item_key,
    outbox_key,
    rebuilding_key,
    shard_of_key,
)


class FakeRedis:
    def __init__(self, keys: list[str]) -> None:
        self._keys = keys

    async def scan_iter(self, *, match: str, count: int) -> AsyncIterator[bytes]:
        for key in self._keys:
            yield key.encode()


class FakeRun:
    """A run, and its writes."""

    def __init__(self) -> None:
        self.unlinked: list[str] = []

    def writes(self, shard: str) -> FakeRun:
        return self

    def unlink(self, key: bytes) -> None:
        self.unlinked.append(key.decode())

    async def execute(self) -> None:
        return


async def test_the_revocations_of_tokens_are_no_part_of_the_shard_that_is_rebuilt() -> None:
    """They are beside it in Redis, and in no archive: a token that was stolen would hold again."""
    shard = shard_of_key(REVOCATIONS_KEY)
    assert shard is not None
    item_id = "item-of-another-shard"
    kept = [REVOCATIONS_KEY, cursors_key(shard), rebuilding_key(shard), item_key(item_id)]
    redis, run = FakeRedis([*kept, outbox_key(shard)]), FakeRun()
    await ClosedShards(cast(Any, redis), cast(Any, None)).discard([shard], cast(Any, run))
    assert run.unlinked == [outbox_key(shard)]
