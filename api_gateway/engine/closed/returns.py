"""Brings a closed item back into Redis, where alone it can be changed: a late void strikes one of its bids there.

It is made again out of the archive, by the code that rebuilds shards, and is there from one step of a script on. It
leaves again like any closed item, a minute later at the earliest, whether the void came or not.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any, Final

from redis.asyncio import Redis
from redis.exceptions import RedisError

from api_gateway.engine.loss.known_items import ask, shard_lost
from shared import names
from shared.archive_reads.asking import Asking, Fetch
from shared.archive_reads.origin import closed_items
from shared.archive_reads.rebuild import Rebuilt
from shared.archive_reads.rebuild_reads import read_items, read_verdicts
from shared.archive_reads.retired import is_retiring, retired_item
from shared.archive_reads.verdicts import Answered
from shared.crash_points import crash_point
from shared.domain.errors import Unavailable
from shared.redis_layout.cursors import ask_fence, ask_fields, decode_fence, epoch_of_fence
from shared.redis_layout.keys import (
    accepted_key,
    bidders_key,
    closed_key,
    cursors_key,
    item_key,
    item_rulings_key,
    keys_of_item,
    proxies_key,
    recent_key,
    returning_key,
    verdicts_key,
)
from shared.redis_layout.scripts import Script

BRING_BACK: Final = Script.read(Path(__file__).parent / "lua" / "bring_back.lua")

_IS_BACK, _WAS_THERE, _FENCED = 1, 0, 2
_SHOWS: Final = 50
"""How often an attempt tries again to show what it has staged, within its time, while other items of the shard leave.
"""
_TRIES: Final = 5
_AT_ONCE: Final = 2
_WAITING_MAX: Final = 64
"""The most items that are on their way back, or wait for their turn."""
_WITHIN_S: Final = 50.0
"""The bound of one return, below the minute after which a load balancer gives up a silent request."""
_ARCHIVE_WAIT_S: Final = 5.0
_LOOK_AGAIN_S: Final = 0.1
_PARTS_EXPIRE_S: Final = 120
_VALUES_PER_COMMAND: Final = 1_000


@dataclass(slots=True)
class _Parts:
    """What was written beside the item: by the key where each belongs, the key where it waits."""

    token: str = field(default_factory=lambda: secrets.token_hex(8))
    waiting: dict[str, str] = field(default_factory=dict)

    def key(self, item_id: str, belongs: str) -> str:
        """The key under which a part waits."""
        return self.waiting.setdefault(belongs, returning_key(item_id, self.token, str(len(self.waiting))))


class Returns:
    """Brings items back, a few at a time; the others wait."""

    def __init__(self, redis: Redis, asking: Asking) -> None:
        self._redis: Any = redis
        self._asking = asking
        self._turns = asyncio.Semaphore(_AT_ONCE)
        self._under_way: dict[str, asyncio.Task[bool]] = {}

    async def bring_back(self, item_id: str) -> bool:
        """Return once Redis has the item. False where it is no closed item, and nothing was done.

        Of several who want the same item back, one brings it; a long one takes seconds, and much memory of Redis.

        Raises:
            ShardLost: its shard is lost or closed.
            HistoryRetired: its log is in its export alone.
            Unavailable: it did not come back, say because the archive lags behind, or too many others do.
        """
        task = self._under_way.get(item_id)
        if task is None:
            if len(self._under_way) >= _WAITING_MAX:
                raise Unavailable("too many closed items are on their way back; try again", retry_after_s=5)
            task = self._under_way[item_id] = asyncio.create_task(self._bring_back(item_id), name="bring-back")
            task.add_done_callback(lambda done: self._is_over(item_id, done))
        # A caller that gives up does not end it for the others.
        return await asyncio.shield(task)

    def _is_over(self, item_id: str, task: asyncio.Task[bool]) -> None:
        del self._under_way[item_id]
        if not task.cancelled():
            task.exception()  # there may be no caller left

    async def _bring_back(self, item_id: str) -> bool:
        try:
            async with asyncio.timeout(_WITHIN_S), self._turns:
                for _ in range(_TRIES):
                    reply = await self._try(item_id)
                    if reply is None:
                        return False
                    if reply in (_IS_BACK, _WAS_THERE):
                        return True
        except TimeoutError:
            raise Unavailable("the item could not be brought back in time; try again", retry_after_s=5) from None
        raise Unavailable("other items are leaving Redis right now; try again", retry_after_s=2)

    async def _try(self, item_id: str) -> int | None:
        fence = await self._fence_once_archived(item_id)
        if fence is None:
            return _WAS_THERE
        parts, reply = _Parts(), None
        try:
            async with self._asking.reading() as connection:
                if not await closed_items(connection.fetch, [item_id]):
                    return None
                await _refuse_retired(connection.fetch, item_id)
                version = await _version(connection.fetch, item_id)
                read = await read_items(connection, [item_id], epoch_of_fence(fence))
                item = read.items[0]
                await self._write_parts(item, parts)
                verdicts = read_verdicts(connection, [item_id], read.terms)
                has_verdicts = await self._write_verdicts(item_id, verdicts, parts)
            crash_point("return.staged")
            reply = await self._show(item, parts, fence, has_verdicts=has_verdicts)
            for _ in range(_SHOWS):
                if reply != _FENCED:
                    break
                again = await self._fence_once_archived(item_id)
                if again is None:
                    return _WAS_THERE
                if (
                    epoch_of_fence(again) != epoch_of_fence(fence)
                    or await _version(self._asking.fetch, item_id) != version
                ):
                    break
                await _refuse_retired(self._asking.fetch, item_id)
                # Other items have left. This one is as it was read: an archived void would have given it another seq.
                reply = await self._show(item, parts, again, has_verdicts=has_verdicts)
            return reply
        finally:
            if reply != _IS_BACK and parts.waiting:
                # The parts may be large. If Redis cannot be asked, or the process dies, they expire.
                with suppress(RedisError, OSError, TimeoutError):
                    await self._redis.unlink(*parts.waiting.values())

    async def _fence_once_archived(self, item_id: str) -> str | None:
        """The fence of the item's shard, when everything that the shard had decided before this call is archived:
        another void of the item may be on its way there, if Redis has lost the item's hash since. None where Redis has
        the item.

        Raises:
            ShardLost, Unavailable.
        """
        shard = names.shard_of(item_id)
        give_up_s = asyncio.get_running_loop().time() + _ARCHIVE_WAIT_S
        wanted: int | None = None
        while True:
            pipeline = self._redis.pipeline()
            ask_fence(pipeline, shard)
            ask_fields(pipeline, shard, "next", "archived")
            pipeline.exists(item_key(item_id))
            answer, (last, archived), is_there = await ask(pipeline.execute())
            fence = decode_fence(answer)
            if fence is None:
                raise shard_lost()
            if is_there:
                return None
            wanted = int(last or 0) if wanted is None else wanted
            if int(archived or 0) >= wanted:
                return fence
            if asyncio.get_running_loop().time() > give_up_s:
                raise Unavailable("the archive lags behind: this bid can be struck when it has caught up")
            await asyncio.sleep(_LOOK_AGAIN_S)

    async def _write_parts(self, item: Rebuilt, parts: _Parts) -> None:
        item_id = item.item_id
        await self._write("hset", item_id, proxies_key(item_id), _flat(item.maxima), parts)
        await self._write("hset", item_id, bidders_key(item_id), _flat(item.bidders), parts)
        await self._write("rpush", item_id, accepted_key(item_id), item.accepted, parts)
        await self._write("rpush", item_id, recent_key(item_id), item.recent, parts)
        await self._write("hset", item_id, item_rulings_key(item_id), _flat(item.rulings), parts)

    async def _write_verdicts(self, item_id: str, verdicts: AsyncIterator[Answered], parts: _Parts) -> bool:
        """Each into the first of its fields that is free. Returns whether there are any."""
        taken: set[str] = set()
        values: list[Any] = []
        async for answer in verdicts:
            free = next((name for name in answer.fields if name not in taken), None)
            if free is None:
                continue
            taken.add(free)
            values += (free, answer.verdict.encode())
            if len(values) >= _VALUES_PER_COMMAND:
                await self._write("hset", item_id, verdicts_key(item_id), values, parts)
                values.clear()
        await self._write("hset", item_id, verdicts_key(item_id), values, parts)
        return bool(taken)

    async def _write(self, command: str, item_id: str, belongs: str, values: Iterable[Any], parts: _Parts) -> None:
        """Write a part where it waits, in pieces: one long command would keep bids waiting."""
        rest = iter(values)
        while piece := list(islice(rest, _VALUES_PER_COMMAND)):
            key = parts.key(item_id, belongs)
            # In one transaction: nothing is left that would never expire.
            pipeline = self._redis.pipeline(transaction=True)
            pipeline.execute_command(command, key, *piece)
            pipeline.expire(key, _PARTS_EXPIRE_S)
            await ask(pipeline.execute())

    async def _show(self, item: Rebuilt, parts: _Parts, fence: str, *, has_verdicts: bool) -> int:
        item_id, shard = item.item_id, names.shard_of(item.item_id)
        keys = [cursors_key(shard), closed_key(shard), item_key(item_id)]
        for belongs, waits in parts.waiting.items():
            keys += (waits, belongs)
        keys += (key for key in keys_of_item(item_id)[1:] if key not in parts.waiting)
        which = list(parts.waiting).index(verdicts_key(item_id)) + 1 if has_verdicts else 0
        until_ms = (item.verdicts_until_us or 0) // 1_000
        arguments = [item_id, fence, len(parts.waiting), until_ms, which, *_flat(item.fields)]
        return int(await ask(BRING_BACK.run(self._redis, keys, arguments)))


async def _refuse_retired(fetch: Fetch, item_id: str) -> None:
    """Raise where the archive may not have the item's log any more when it is back.

    The fence was read before this. The retention first notes that it checks the item, and then changes the fence of its
    shard, unless Redis has the item. So either this call sees the note, or the fence that was read before no longer
    holds.
    """
    retired = await retired_item(fetch, item_id)
    if retired is not None:
        raise retired.error(item_id)
    if await is_retiring(fetch, item_id):
        raise Unavailable("it is being checked whether this item may leave the archive; try again", retry_after_s=60)


async def _version(fetch: Fetch, item_id: str) -> tuple[int, int]:
    """Epoch and seq of the newest archived event of the item, which is archived."""
    (row,) = await fetch("SELECT epoch, seq FROM items WHERE item_id = $1", item_id)
    return row["epoch"], row["seq"]


def _flat(fields: Mapping[str, Any]) -> Iterator[Any]:
    return chain.from_iterable(fields.items())
