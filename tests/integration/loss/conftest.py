"""What the tests of the shards' scripts ask: the servers that all tests share, without a gateway."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio
from redis.asyncio import Redis

from api_gateway.engine.relay.shard_scripts import ShardScripts


@pytest_asyncio.fixture
async def redis(redis_url: str) -> AsyncIterator[Redis]:
    async with Redis.from_url(redis_url, protocol=2) as client:
        yield client


@pytest.fixture
def scripts(redis: Redis) -> ShardScripts:
    return ShardScripts(redis)
