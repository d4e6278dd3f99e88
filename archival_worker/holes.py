"""Finds entries that are published but will never come, and asks the relay for them again.

Messages can leave the stream unarchived: it was purged by hand, they aged out while PostgreSQL was away for days, or
the server lost its newest ones. The outbox still has them. What gives it away: the consumer has nothing left to
deliver, and still a shard's archived cursor stands below its published one. Seen twice in a row, with the same cursor,
it is no message on its way. Then a mark at the shard's cursors tells its relay to publish again from the archived one
on.

(JetStream drops what it saw within its duplicate window, two minutes, even if the message is gone. So the mark is set
again until the cursor moves.)
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final, cast

from nats.errors import Error as NatsError
from redis.asyncio import Redis
from redis.exceptions import RedisError

from archival_worker.archive import Position
from archival_worker.errors import ArchiveUnavailable, StreamUnavailable
from shared import names
from shared.clients.nats import Client

logger = logging.getLogger(__name__)

LOOK_EVERY_S: Final = 10.0
REPUBLISH_FIELD: Final = "republish"
"""Field of a shard's cursors; the relay's rewind removes it."""


def holes(
    archived: Mapping[str, Position], published: Mapping[str, Position], before: Mapping[str, Position]
) -> dict[str, Position]:
    """The shards whose archived position is below the published one and did not move since the look ``before``.
    Pure."""
    return {
        shard: position
        for shard, position in archived.items()
        if (there := published.get(shard)) is not None
        # A lower epoch: nothing is archived since the shard began, or began anew after Redis was lost.
        and position.epoch <= there.epoch
        and there.n > (position.n if position.epoch == there.epoch else 0)
        and before.get(shard) == position
    }


class HoleFinder:
    """Looks from time to time. Several archivers may: asking twice is asking once."""

    def __init__(
        self,
        redis: Redis,
        connect: Callable[[], Awaitable[Client]],
        read_all: Callable[[], Awaitable[Mapping[str, Position]]],
        *,
        look_every_s: float = LOOK_EVERY_S,
    ) -> None:
        self._redis = redis
        self._connect = connect
        self._read_all = read_all
        self._look_every_s = look_every_s
        self._before: dict[str, Position] = {}
        self.alarms: dict[str, str] = {}
        """Shards that wait for entries which the stream does not have."""

    async def run(self) -> None:
        """Look until cancelled; whoever is away is looked at later."""
        while True:
            await asyncio.sleep(self._look_every_s)
            try:
                await self.once()
            except (ArchiveUnavailable, StreamUnavailable, RedisError, NatsError, OSError, TimeoutError) as error:
                self._before.clear()
                logger.info("no look for missing entries: %s: %s", type(error).__name__, error)

    async def once(self) -> dict[str, Position]:
        """One look; the shards for which entries were asked for again.

        Raises:
            ArchiveUnavailable, StreamUnavailable, RedisError, NatsError, OSError, TimeoutError: nothing can be told
            now.
        """
        if not await self._nothing_on_its_way():
            self._before.clear()
            return {}
        archived = dict(await self._read_all())
        found = holes(archived, await self._published(), self._before)
        self._before = archived
        for shard, position in found.items():
            text = f"entries after {position.n} are published but not in the stream; asked the relay for them again"
            if self.alarms.get(shard) != text:
                logger.error("shard %s: %s", shard, text)
            await cast("Awaitable[Any]", self._redis.hset(names.cursors_key(shard), REPUBLISH_FIELD, "1"))
        self.alarms = {
            shard: f"entries after {position.n} are published but not in the stream; asked the relay for them again"
            for shard, position in found.items()
        }
        return found

    async def _nothing_on_its_way(self) -> bool:
        client = await self._connect()
        info = await client.jetstream().consumer_info(names.STREAM, names.ARCHIVER_DURABLE)
        return not info.num_pending and not info.num_ack_pending

    async def _published(self) -> dict[str, Position]:
        pipeline = self._redis.pipeline(transaction=False)
        for shard in names.SHARDS:
            pipeline.hmget(names.cursors_key(shard), ["epoch", "published"])
        answers = await pipeline.execute()
        return {
            shard: Position(int(epoch), int(published))
            for shard, (epoch, published) in zip(names.SHARDS, answers, strict=True)
            if epoch is not None and published is not None
        }
