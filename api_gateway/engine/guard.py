"""Stands before every connection to Redis: no script runs on a Redis that went back in time.

An older copy of Redis has cursors, so its scripts would go on, and give numbers out again. Redis has to be started to
run on another copy. So each new connection asks which run of Redis it has reached; the first one that reaches a run
which is not known yet waits until that run's shards were compared with what is known elsewhere, and those that are
behind are closed. All other connections to it wait for the same comparison. Between two starts of Redis this costs one
command per connection, and nothing per bid.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as RedisConnectionError

from shared.domain.errors import Unavailable

Compare = Callable[[], Awaitable[None]]


class Guard:
    """Admits runs of Redis."""

    def __init__(self, compare: Compare) -> None:
        """``compare`` closes the shards that are behind, through connections that are not guarded.

        It raises Unavailable where nothing could be compared.
        """
        self._compare = compare
        self._admitted: bytes | None = None
        self._lock = asyncio.Lock()

    async def on_connect(self, connection: AbstractConnection) -> None:
        """For ``redis_connect_func``: the usual handshake, then the question.

        Raises:
            RedisError: this run of Redis cannot be admitted now; the connection is closed, and the next one asks again.
        """
        try:
            await connection.on_connect()
            run = await run_of(connection)
            if run != self._admitted:
                await self._admit(run)
        except BaseException:
            # The library closes it for its own errors alone. Cancelled by who waited for it, it would go back to the
            # pool open, and serve others without having been admitted.
            await connection.disconnect(nowait=True)
            raise

    async def _admit(self, run: bytes) -> None:
        async with self._lock:
            if run != self._admitted:
                try:
                    await self._compare()
                except Unavailable as error:
                    raise RedisConnectionError(str(error)) from error
                self._admitted = run


async def run_of(connection: AbstractConnection) -> bytes:
    """The id of the running Redis, another one after each start.

    Raises:
        RedisError: it does not tell.
    """
    await connection.send_command("INFO", "server")
    answer: Any = await connection.read_response()
    text: bytes = answer.encode() if isinstance(answer, str) else answer
    for line in text.splitlines():
        if line.startswith(b"run_id:"):
            return line.removeprefix(b"run_id:")
    raise RedisConnectionError("Redis does not tell its run_id")
