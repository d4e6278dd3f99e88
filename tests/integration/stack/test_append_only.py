"""A loss of power in the middle of a script's effects, and then another start of Redis."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from redis.asyncio import Redis

from infrastructure.local.stack import Stack
from tests.stack import StackFactory

SCRIPT = (
    "redis.call('SET', KEYS[1], ARGV[1]); redis.call('HINCRBY', KEYS[2], 'n', 1); return redis.call('GET', KEYS[1])"
)


def append_only_file(stack: Stack) -> Path:
    parts = sorted((stack.data_dir / "redis" / "appendonlydir").glob("*.incr.aof"))
    return parts[-1] if parts else stack.data_dir / "redis" / "appendonly.aof"


async def restart(stack: Stack, *, length: int | None = None) -> None:
    """Kill Redis, keep so many bytes of its file, and start it again."""
    stack.kill("redis", signal.SIGKILL)
    assert await stack.processes["redis"].wait(10)
    if length is not None:
        os.truncate(append_only_file(stack), length)
    await stack.start_process("redis")


async def test_a_torn_transaction_never_happens(start_stack: StackFactory) -> None:
    """Wherever the file is cut within the effects of a script: none of them is there, not even two starts later."""
    stack = await start_stack(services=())
    for cut in (1, 16, 40, 75, 90, 10_000):
        async with Redis.from_url(stack.urls.redis_url, protocol=2) as redis:
            await redis.delete("told", "never", "later", "count")
            await redis.eval(SCRIPT, 2, "told", "count", "yes")
            kept = append_only_file(stack).stat().st_size
            await redis.eval(SCRIPT, 2, "never", "count", "no")
            size = append_only_file(stack).stat().st_size
        await restart(stack, length=min(kept + cut, size - 1))
        async with Redis.from_url(stack.urls.redis_url, protocol=2) as redis:
            assert await redis.eval(SCRIPT, 2, "later", "count", "yes") == b"yes"
        await restart(stack)
        async with Redis.from_url(stack.urls.redis_url, protocol=2) as redis:
            found = await redis.mget("told", "never", "later")
            assert (found, await redis.hget("count", "n")) == ([b"yes", None, b"yes"], b"2"), f"cut {cut} bytes behind"
