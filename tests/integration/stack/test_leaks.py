"""Nothing is left behind by who gives up: no connection and no query."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import cast

import pytest
from redis.asyncio import Redis
from redis.exceptions import ConnectionError as RedisConnectionError

from api_gateway.engine.loss.guard import Guard
from api_gateway.reads.archive import Archive
from infrastructure.local.servers.ports import HOST
from shared.clients.postgres import open_postgres
from shared.clients.redis import open_redis
from shared.domain.errors import Unavailable
from tests.tcp import serving

LONG_S = 600.0


async def test_a_command_that_is_given_up_leaves_no_connection_that_was_not_compared(redis_url: str) -> None:
    """The library gives such a connection back to its pool as it is: open, so that nobody is asked about it again."""
    comparing = asyncio.Event()

    async def compare(run: str) -> None:
        if comparing.is_set():
            raise Unavailable("nobody to be asked")
        comparing.set()
        await asyncio.Event().wait()

    async with open_redis(redis_url, connections_max=1, on_connect=Guard(compare).on_connect) as redis:
        given_up = asyncio.create_task(_ask(redis))
        await comparing.wait()
        given_up.cancel()
        await asyncio.wait([given_up])
        with pytest.raises(RedisConnectionError, match="nobody to be asked"):
            await _ask(redis)


async def _ask(redis: Redis) -> None:
    await cast("Awaitable[bytes | None]", redis.get("anything"))


async def test_a_question_to_the_archive_ends_with_who_asked_it() -> None:
    """A health check that gives up while PostgreSQL hangs: its query would go on, and keep others from a connection."""
    asked, hung_up, the_end = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        while await reader.read(1_000):
            asked.set()
        hung_up.set()
        await the_end.wait()

    async with serving(silent) as port:
        pool = await open_postgres(f"postgresql://u@{HOST}:{port}/d", name="test", connections_max=1, timeout_s=LONG_S)
        try:
            asking = asyncio.create_task(Archive(pool, timeout_s=LONG_S).ping())
            await asked.wait()
            asking.cancel()
            async with asyncio.timeout(10):
                await hung_up.wait()
        finally:
            pool.terminate()
