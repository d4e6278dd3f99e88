"""Fixtures of tests that drive the scripts on items without a gateway, in the file's event loop."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio
from redis.asyncio import Redis

from tests.integration.gateway.bids.lot import Lot, new_lot


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def own_redis(redis_url: str) -> AsyncIterator[Redis]:
    """A database of its own in the shared server: here whole shards and items are spoilt."""
    async with Redis.from_url(redis_url.rpartition("/")[0] + "/7", protocol=2) as client:
        await client.flushdb()
        yield client
        await client.flushdb()


@pytest_asyncio.fixture(loop_scope="module")
async def lot(own_redis: Redis) -> Lot:
    return new_lot(own_redis)
