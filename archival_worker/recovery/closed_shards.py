"""Closed shards: Redis still has them, but nothing may happen on them until they are rebuilt.

A gateway closes a shard when Redis went back to an older copy of it; ``recover --item`` closes a shard that lacks a
single item. The cursors of a closed shard have no ``epoch``; they have it under ``stale`` instead.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from nats.js import JetStreamContext
from redis.asyncio import Redis

from archival_worker.consume.backlog import has_message
from archival_worker.consume.deliveries import Delivery, read_delivery
from archival_worker.errors import RecoveryRefused
from archival_worker.recovery.claims import ClaimedWrites, Run
from archival_worker.store.archive import Archive
from shared import names
from shared.clients.cluster.search import every_key
from shared.messages import frame_batch
from shared.redis_layout.cursors import read_cursors, read_epoch
from shared.redis_layout.keys import REVOCATIONS_KEY, cursors_key, item_key, rebuilding_key
from shared.redis_layout.outbox import Entry, read_pages
from shared.redis_layout.scripts import Script

_KEYS_PER_STEP: Final = 1_000

CLOSE: Final = Script.read(Path(__file__).parent / "lua" / "close_for_item.lua")


class ClosedShards:
    """Finds closed shards, archives what they have, and removes them from Redis."""

    def __init__(self, redis: Redis, archive: Archive) -> None:
        self._redis: Any = redis
        self._archive = archive

    async def close_for(self, item_id: str, jetstream: JetStreamContext | None, *, dry_run: bool) -> None:
        """Close the shard of a lost item, although the shard is not lost.

        Raises:
            RecoveryRefused: Redis has the item, or need not have it, or no item with this id is known. Nothing was
                changed.
            ArchiveUnavailable, StreamUnavailable: it is unknown now whether the item exists. Nothing was changed.
        """
        if not names.is_item_id(item_id):
            raise RecoveryRefused(f"{item_id!r} is no item's id")
        if await self._redis.exists(item_key(item_id)):
            raise RecoveryRefused(f"Redis has item {item_id}")
        if await self._archive.has_closed(item_id):
            raise RecoveryRefused(f"item {item_id} is closed and served from the archive: there is nothing to rebuild")
        if not await self._is_known(item_id, jetstream):
            # A typing error must not take a whole shard's items off sale.
            raise RecoveryRefused(f"neither the archive nor the stream nor its shard's outbox knows an item {item_id}")
        if not dry_run:
            keys = [cursors_key(names.shard_of(item_id)), item_key(item_id)]
            await CLOSE.run(self._redis, keys, [])

    async def _is_known(self, item_id: str, jetstream: JetStreamContext | None) -> bool:
        if await self._archive.knows(item_id):
            return True
        if jetstream is not None:
            # Messages too late for a rebuild stay in the stream for days, but out of the archive: they do not count.
            epoch = await read_epoch(self._redis, names.shard_of(item_id))
            if await has_message(jetstream, names.subject_of(item_id), epoch=epoch or 0):
                return True
        async for entries in read_pages(self._redis, names.shard_of(item_id)):
            if any(entry.item_id == item_id for entry in entries):
                return True
        return False

    async def find(self) -> dict[str, int]:
        """The closed shards, each with the epoch in which it was closed."""
        found = await read_cursors(self._redis, names.SHARDS)
        return {shard: cursors.stale for shard, cursors in found.items() if cursors.stale is not None}

    async def archive(self, shards: Mapping[str, int]) -> tuple[int, int]:
        """Archive what their outboxes have. Returns how many events were not archived yet, and how many dead letters
        there were.

        Nearly always none. But an entry that was never published, or has left the stream since, is nowhere else.

        Raises:
            ArchiveUnavailable: some of it is not stored; try again.
        """
        stored, put_aside = 0, 0
        for shard, epoch in shards.items():
            async for entries in read_pages(self._redis, shard):
                done = await self._archive.store([_delivery_of(shard, epoch, entry) for entry in entries])
                stored += done.bids + done.events
                put_aside += len(done.dead_letters)
        return stored, put_aside

    async def discard(self, shards: Iterable[str], run: Run) -> None:
        """Remove everything of these claimed shards but their cursors, the mark, and the revocations of tokens. If the
        run is killed before it opens them, the next one finds them closed; opening replaces both.

        Raises:
            RecoveryOvertaken: another run has claimed one of them.
            RedisError: Redis cannot be asked, or shards moved between the nodes of a cluster meanwhile.
        """
        writes = {f"{{{shard}}}:".encode(): run.writes(shard) for shard in shards}
        if not writes:
            return
        kept = {key.encode() for shard in shards for key in (cursors_key(shard), rebuilding_key(shard))}
        # Only gateways that still know revocations could bring them back.
        kept.add(REVOCATIONS_KEY.encode())
        found = 0
        async for key in every_key(self._redis, "{s??}:*", count=_KEYS_PER_STEP):
            of_shard = writes.get(key[: key.index(b":") + 1])
            if of_shard is not None and key not in kept:
                of_shard.unlink(key)
                found += 1
            if found >= _KEYS_PER_STEP:
                await self._discard(writes.values())
                found = 0
        await self._discard(writes.values())

    async def _discard(self, writes: Iterable[ClaimedWrites]) -> None:
        for each in writes:
            await each.execute()


def _delivery_of(shard: str, epoch: int, entry: Entry) -> Delivery:
    """An outbox entry as the stream would have delivered it."""
    message = frame_batch(shard, epoch, entry.n, entry.item_id, *entry[2:])
    return read_delivery(names.subject_of(entry.item_id), message, "", names.message_id(shard, epoch, entry.n))
