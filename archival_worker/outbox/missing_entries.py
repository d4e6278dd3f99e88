"""Finds entries that are published but will never come, and asks the relay for them again.

Messages can leave the stream unarchived: it was purged by hand, they aged out while PostgreSQL was down for days, or
the server lost its newest ones. The outbox still has them. Two looks find them, while everything else goes on:

1. A first look notes each shard's archived and published cursors, and then the last message of the stream. No published
   entry is after that message.
2. A later look finds that the workers have acknowledged everything up to that message, so what the stream had of it is
   committed. A shard whose archived cursor has not moved, and is below what was published at the first look, waits for
   entries that the stream does not have.

Then a mark in the shard's cursors tells its relay to publish again from the archived cursor on. The next look notes the
result, and the one after it compares again.

(JetStream drops what it saw within its duplicate window, two minutes, even if the message is gone. So the mark is set
again until the cursor moves.)
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from nats.errors import Error as NatsError
from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from archival_worker.errors import ArchiveUnavailable
from shared import names
from shared.clients.nats import Client, StreamUnavailable
from shared.redis_layout.cursors import ask_cursors, decode_cursors
from shared.redis_layout.keys import cursors_key
from shared.redis_layout.outbox import EntryId
from shared.redis_layout.scripts import Script

logger = logging.getLogger(__name__)

LOOK_EVERY_S: Final = 10.0
REPUBLISH: Final = Script.read(Path(__file__).parent / "lua" / "ask_to_republish.lua")


def standing_still(
    archived: Mapping[str, EntryId], published: Mapping[str, EntryId], before: Mapping[str, EntryId]
) -> dict[str, EntryId]:
    """The shards whose archived position is below the published one and did not move since the look ``before``.
    Pure."""
    return {
        shard: position
        for shard, position in archived.items()
        if (there := published.get(shard)) is not None
        # In a lower epoch nothing was archived since the shard began, or began anew after Redis was lost.
        and position.epoch <= there.epoch
        and there.n > (position.n if position.epoch == there.epoch else 0)
        and before.get(shard) == position
    }


def published_since(before: Mapping[str, EntryId], now: Mapping[str, EntryId]) -> dict[str, EntryId]:
    """What was published ``before`` and still is: less if the relay went back, nothing if Redis was lost. Pure."""
    return {
        shard: min(position, now[shard])
        for shard, position in before.items()
        if shard in now and now[shard].epoch == position.epoch
    }


@dataclass(frozen=True, slots=True)
class _Look:
    """What one look notes for the next. ``last_seq``: the stream's last message then."""

    archived: Mapping[str, EntryId]
    published: Mapping[str, EntryId]
    last_seq: int


class MissingEntries:
    """Looks from time to time. Several archivers may: asking the relay twice does no harm."""

    def __init__(
        self,
        redis: Redis,
        connect: Callable[[], Awaitable[Client]],
        read_all: Callable[[], Awaitable[Mapping[str, EntryId]]],
        *,
        look_every_s: float = LOOK_EVERY_S,
    ) -> None:
        self._redis = redis
        self._connect = connect
        self._read_all = read_all
        self._look_every_s = look_every_s
        self._before: _Look | None = None
        self.alarms: dict[str, str] = {}
        """Shards that wait for entries which the stream does not have."""

    async def run(self) -> None:
        """Look until cancelled. If a server is unreachable, the look is skipped."""
        while True:
            await asyncio.sleep(self._look_every_s)
            try:
                await self.once()
            except (ArchiveUnavailable, StreamUnavailable, RedisError, NatsError, OSError, TimeoutError) as error:
                self._before = None
                logger.info("cannot look for missing entries: %s: %s", type(error).__name__, error)

    async def once(self) -> dict[str, EntryId]:
        """Look once. Returns the shards whose relays were asked to publish again.

        Raises:
            ArchiveUnavailable, StreamUnavailable, RedisError, NatsError, OSError, TimeoutError: a server did not
            answer.
        """
        acknowledged = await self._acknowledged()
        archived = dict(await self._read_all())
        published = await self._published()
        look = _Look(archived, published, await self._last_seq())
        before = self._before
        if before is None or look.last_seq < before.last_seq:
            # The first look, or another stream.
            self._before = look
            return {}
        if acknowledged is not None and acknowledged < before.last_seq:
            return {}
        found = standing_still(archived, published_since(before.published, published), before.archived)
        # The published cursor from before the request does not show whether the relay has published again.
        self._before = replace(look, published={shard: n for shard, n in published.items() if shard not in found})
        for shard in found:
            await REPUBLISH.run(self._redis, [cursors_key(shard)], [])
        unmoved = standing_still(archived, published, before.archived)
        self._alarm(found | {shard: position for shard, position in unmoved.items() if shard in self.alarms})
        return found

    def _alarm(self, found: Mapping[str, EntryId]) -> None:
        alarms = {
            shard: f"entries after {position.n} are published but not in the stream; asked the relay for them again"
            for shard, position in found.items()
        }
        for shard, text in alarms.items():
            if self.alarms.get(shard) != text:
                logger.error("shard %s: %s", shard, text)
        self.alarms = alarms

    async def _acknowledged(self) -> int | None:
        """Up to which message of the stream everything is acknowledged; None if all of the stream is."""
        client = await self._connect()
        info = await client.jetstream().consumer_info(names.STREAM, names.ARCHIVER_DURABLE)
        if not info.num_pending and not info.num_ack_pending:
            return None
        return info.ack_floor.stream_seq if info.ack_floor is not None else 0

    async def _last_seq(self) -> int:
        client = await self._connect()
        return (await client.jetstream().stream_info(names.STREAM)).state.last_seq

    async def _published(self) -> dict[str, EntryId]:
        pipeline = self._redis.pipeline(transaction=False)
        for shard in names.SHARDS:
            ask_cursors(pipeline, shard)
        published: dict[str, EntryId] = {}
        for shard, answer in zip(names.SHARDS, await pipeline.execute(raise_on_error=False), strict=True):
            if type(answer) is ResponseError:
                continue  # its key is not what it should be, which is an alarm of the copier; the others go on
            if isinstance(answer, Exception):
                raise answer
            try:
                cursors = decode_cursors(answer)
            except ValueError:
                continue  # a field of it is no number
            if cursors.epoch is not None:
                published[shard] = EntryId(cursors.epoch, cursors.published)
        return published
