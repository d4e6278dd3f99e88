"""The embedded stack against its real servers: data stays, nothing is left behind, what was killed comes
back.
"""

from __future__ import annotations

import asyncpg
import psutil
import pytest
import redis.asyncio

from infrastructure.local.stack import Stack
from tests.stack import StackFactory

pytestmark = pytest.mark.integration


async def write_marks(stack: Stack) -> None:
    client = redis.asyncio.Redis.from_url(stack.urls.redis_url, protocol=2)
    await client.set("mark", "kept")
    await client.aclose()
    connection = await asyncpg.connect(stack.urls.postgres_url)
    await connection.execute("CREATE TABLE mark (text text)")
    await connection.execute("INSERT INTO mark VALUES ('kept')")
    await connection.close()


async def read_marks(stack: Stack) -> tuple[object, object]:
    client = redis.asyncio.Redis.from_url(stack.urls.redis_url, protocol=2)
    in_redis = await client.get("mark")
    await client.aclose()
    connection = await asyncpg.connect(stack.urls.postgres_url)
    in_postgres = await connection.fetchval("SELECT text FROM mark")
    await connection.close()
    return in_redis, in_postgres


async def test_a_second_start_finds_the_data(start_stack: StackFactory) -> None:
    stack = await start_stack(services=())
    await write_marks(stack)
    await stack.stop()
    again = await start_stack(services=(), data_dir=stack.data_dir, ports=stack.ports)
    assert await read_marks(again) == (b"kept", "kept")


async def test_stop_leaves_no_process(start_stack: StackFactory) -> None:
    stack = await start_stack(services=())
    family = [psutil.Process(pid) for name in stack.servers if (pid := stack.pid(name))]
    family += [child for process in family for child in process.children(recursive=True)]
    assert len(family) > 3, "PostgreSQL has children of its own"
    await stack.stop()
    assert [process for process in family if process.is_running()] == []
