"""Levels of acknowledgement beyond the Lua commit: when may an accepted bid be answered 201?

``log``: when JetStream has the bid's outbox entry, so the bid survives the loss of Redis itself. The relay that owns
the shard may be in another gateway, so the shard's cursor is looked at as well.

``replica``: when enough replicas have it. For a flush that is asked on the connection of the bids (``scripts.py``).

A verdict that was found in Redis, and not decided just now, is an acknowledgement like any other: ``secure`` of both
levels waits until all that the shard has decided so far is as safe.

A bid that is not confirmed in time is not refused: its outcome is unknown to the client, who repeats it under its key.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
from collections.abc import Awaitable
from typing import Any, cast

from redis.asyncio import Redis
from redis.exceptions import RedisError

from shared import names
from shared.domain.errors import OutcomeUnknown

logger = logging.getLogger(__name__)

_POLL_S = 0.01


class LogAcknowledger:
    """Waits for outbox entries to be published. Bounded by the bids in flight."""

    def __init__(self, redis: Redis, *, timeout_s: float) -> None:
        """A relay of this process may call :meth:`published`, which is faster than looking."""
        self._redis = redis
        self._timeout_s = timeout_s
        self._waiting: dict[str, list[tuple[int, int, asyncio.Future[None]]]] = {}
        self._order = itertools.count()
        self._wake = asyncio.Event()

    def published(self, shard: str, entry: int) -> None:
        """The entry and all before it have a PubAck."""
        waiting = self._waiting.get(shard)
        if waiting is None:
            return
        while waiting and waiting[0][0] <= entry:
            future = heapq.heappop(waiting)[2]
            if not future.done():
                future.set_result(None)
        if not waiting:
            del self._waiting[shard]

    async def confirm(self, shard: str, entry: int) -> None:
        """Return when the entry is published.

        Raises:
            OutcomeUnknown: it is not, within the time allowed; it may be later.
        """
        future = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting.setdefault(shard, []), (entry, next(self._order), future))
        self._wake.set()
        try:
            async with asyncio.timeout(self._timeout_s):
                await future
        except TimeoutError:
            raise OutcomeUnknown from None

    async def secure(self, shard: str) -> None:
        """Return when everything that the shard has decided so far is published.

        Raises:
            OutcomeUnknown: as :meth:`confirm`.
            RedisError, OSError: the cursor cannot be read.
        """
        newest = await cast("Awaitable[bytes | None]", self._redis.hget(names.cursors_key(shard), "next"))
        await self.confirm(shard, int(newest or 0))

    async def run(self) -> None:
        """Look at the cursors of the shards for which somebody waits; until cancelled.

        Also of those that this process relays: a flush of many items takes its time, and the first of them may be
        published before the last is answered, so before anybody waits to be told.
        """
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                await asyncio.sleep(_POLL_S)
                self._drop_abandoned()
                if self._waiting:
                    await self._look(list(self._waiting))

    async def _look(self, shards: list[str]) -> None:
        pipeline = self._redis.pipeline(transaction=False)
        for shard in shards:
            pipeline.hget(names.cursors_key(shard), "published")
        try:
            answers = await pipeline.execute()
        except (RedisError, OSError, TimeoutError) as error:
            logger.info("acknowledgement: cursors cannot be read: %s", error)
            return
        for shard, published in zip(shards, answers, strict=True):
            if published is not None:
                self.published(shard, int(published))

    def _drop_abandoned(self) -> None:
        """Forget those whose time ran out, so that a shard nobody publishes is not looked at for ever."""
        for shard, waiting in list(self._waiting.items()):
            alive = [entry for entry in waiting if not entry[2].done()]
            if alive:
                heapq.heapify(alive)
                self._waiting[shard] = alive
            else:
                del self._waiting[shard]


class ReplicaAcknowledger:
    """Asks the replicas about what is in Redis already."""

    def __init__(self, redis: Redis, *, replicas: int, timeout_ms: int) -> None:
        self._redis = redis
        self._replicas = replicas
        self._timeout_ms = timeout_ms

    async def secure(self, shard: str) -> None:
        """Return when enough replicas have everything that the shard has decided so far.

        Raises:
            OutcomeUnknown: they have not, within the time allowed.
            RedisError, OSError: Redis cannot be asked.
        """
        async with self._redis.client() as connection:
            # WAIT is about the writes of its own connection. Replicas take writes in order: who has this one has all
            # before it.
            await connection.set(names.mark_key(shard), "1", px=self._timeout_ms)
            count: int = await cast(Any, connection.wait(self._replicas, self._timeout_ms))
        if count < self._replicas:
            raise OutcomeUnknown
