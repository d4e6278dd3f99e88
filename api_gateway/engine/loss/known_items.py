"""Whether an item that Redis does not have was ever there: asked of everybody who may know, within bounds.

Anybody may ask for random ids, as a reader, a bidder or a seller. So the cost of one question does not depend on the
length of the outbox. Only a few questions run at once; a bounded number of others wait a short time for their turn.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from enum import Enum
from typing import Any, Final, TypeVar

from redis.asyncio import Redis
from redis.exceptions import RedisError

from api_gateway.engine.loss.witnesses import Witnesses
from shared import names
from shared.clients.redis import told_of
from shared.domain.errors import ShardLost, Unavailable
from shared.redis_layout.cursors import ask_is_open, read_epoch
from shared.redis_layout.keys import opened_key
from shared.redis_layout.outbox import read_newest

T = TypeVar("T")

CANNOT_BE_TOLD: Final = "whether this item was lost cannot be told now; try again later"

QUESTIONS_AT_ONCE: Final = 16
QUESTIONS_WAITING_MAX: Final = 1_024
"""Ids that may be asked about at the same time. Callers with the same id wait for one answer."""
TURN_S: Final = 2.0
_ENTRIES_LOOKED_AT: Final = 512


class Known(Enum):
    """What became of an item that Redis does not have."""

    NONE = 0
    """Nobody ever had it."""
    KNOWN = 1
    """It was there. It may be a closed one."""
    CLOSED = 2
    """It was closed, and the archive has all of it."""


class TooManyQuestions(Unavailable):
    """Too many questions about missing items are under way. Nothing is known of this one."""

    def __init__(self) -> None:
        super().__init__("too many questions about items that Redis does not have; try again", retry_after_s=2)


class KnownItems:
    """Asks the outbox, the stream and the archive."""

    def __init__(self, redis: Redis, witnesses: Witnesses) -> None:
        self._redis: Any = redis
        self._witnesses = witnesses
        self._asked: dict[str, asyncio.Task[bool]] = {}
        self._under_way = 0
        self._turns = asyncio.Semaphore(QUESTIONS_AT_ONCE)

    async def is_known(self, item_id: str) -> bool:
        """Whether there was ever an event of the item. A caller that holds a fence must not join a question of others;
        it uses :meth:`look_past_outbox`.

        Raises:
            ShardLost: Redis has lost the whole shard, or only the archive could tell that the item is not lost.
            TooManyQuestions: nobody was asked.
            Unavailable: a witness could not be asked, and those that could do not know the item.
        """
        asked = self._asked.get(item_id)
        if asked is None:
            if self._under_way >= QUESTIONS_WAITING_MAX:
                raise TooManyQuestions
            self._under_way += 1
            asked = self._asked[item_id] = asyncio.create_task(self._in_turn(item_id), name="is-item-known")
            asked.add_done_callback(lambda task: self._answered(item_id, task))
        # A caller that gives up does not end the question for the others.
        return await asyncio.shield(asked)

    def _answered(self, item_id: str, task: asyncio.Task[bool]) -> None:
        self._under_way -= 1
        del self._asked[item_id]
        if not task.cancelled():
            task.exception()  # there may be no caller left

    async def _in_turn(self, item_id: str) -> bool:
        try:
            async with asyncio.timeout(TURN_S):
                await self._turns.acquire()
        except TimeoutError:
            raise TooManyQuestions from None
        try:
            return await self._find(item_id)
        finally:
            self._turns.release()

    async def _find(self, item_id: str) -> bool:
        if await self._is_opened(item_id):
            return True
        past = (await self.look_past_outbox([item_id]))[item_id]
        if isinstance(past, Unavailable):
            raise past
        return past is not Known.NONE

    async def look_past_outbox(self, item_ids: Sequence[str]) -> dict[str, Known | Unavailable]:
        """What became of each of these items, which Redis does not have and no outbox opens: one question to the stream
        for all of them, and one to the archive. The bounds on what is under way are the caller's.

        Events go from the outbox to the stream and on to the archive; a search in this order misses none. The outbox is
        only searched for items that were opened in it: of every other item the archive has the event that opened it.

        Returns:
            For each item the answer, or why there is none, as :meth:`is_known` raises it.
        """
        found: dict[str, Known | Unavailable] = {}
        try:
            published = await self._witnesses.published_epochs(item_ids)
        except Unavailable:
            published = {}  # the stream has nothing that is neither in the outbox nor archived
        for item_id, epoch in published.items():
            try:
                if not await self._is_over(item_id, epoch):
                    found[item_id] = Known.KNOWN
            except Unavailable as error:
                found[item_id] = error
        left = [item_id for item_id in item_ids if item_id not in found]
        if not left:
            return found
        try:
            archived = await self._witnesses.archived(left)
        except Unavailable as error:
            if len(item_ids) == 1:
                found[left[0]] = await self._without_archive(left[0], left[0] in published, error)
                return found
            # For many items the outboxes are not searched, because they are long at such a time. That changes the
            # reason, and no answer.
            found |= {item_id: _untold(item_id in published, error) for item_id in left}
        else:
            for item_id in left:
                is_closed = archived.get(item_id)
                found[item_id] = Known.NONE if is_closed is None else Known.CLOSED if is_closed else Known.KNOWN
        return found

    async def _without_archive(self, item_id: str, is_published: bool, error: Unavailable) -> Known | Unavailable:
        try:
            if await self._is_in_outbox(item_id):
                return Known.KNOWN
        except Unavailable as of_redis:
            return of_redis
        return _untold(is_published, error)

    async def _is_opened(self, item_id: str) -> bool:
        """Whether the event that opened the item waits in the outbox to be archived."""
        shard = names.shard_of(item_id)
        pipeline = self._redis.pipeline(transaction=False)
        ask_is_open(pipeline, shard)
        pipeline.zscore(opened_key(shard), item_id)
        lives, entry = await ask(pipeline.execute())
        if not lives:
            raise shard_lost()
        return entry is not None

    async def _is_over(self, item_id: str, epoch: int) -> bool:
        """Whether the shard was rebuilt since this epoch. Then a message of it does not show that an unarchived item
        exists: what came too late for the rebuilding stays in the stream for days, and out of the archive (decision
        0038).

        Such a message may also be the last one of an item of the present epoch. That item was opened or rebuilt in this
        epoch, so the outbox, which was asked before, or the archive, which is asked next, has it.
        """
        present = await ask(read_epoch(self._redis, names.shard_of(item_id)))
        if present is None:
            raise shard_lost()
        return 0 < epoch < present

    async def _is_in_outbox(self, item_id: str) -> bool:
        """Whether one of the newest entries of the outbox is the item's. Asked only where the archive cannot tell. No
        item begins anew then; this tells an item that is certainly lost from one of which nothing is known."""
        newest = await ask(read_newest(self._redis, names.shard_of(item_id), count=_ENTRIES_LOOKED_AT))
        return any(entry.item_id == item_id for entry in newest)


def _untold(is_published: bool, error: Unavailable) -> Unavailable:
    """Most likely a published item is lost. It is not noted, because only the archive can tell."""
    return ShardLost(CANNOT_BE_TOLD, retry_after_s=5) if is_published else error


async def ask(call: Awaitable[T]) -> T:
    """The answer of Redis.

    Raises:
        Unavailable: Redis cannot be asked.
    """
    try:
        return await call
    except (RedisError, OSError, TimeoutError) as error:
        raise Unavailable(f"Redis cannot be asked: {told_of(error)}") from error


def shard_lost() -> ShardLost:
    """The error for any item of a shard that has no epoch."""
    return ShardLost("this item is being rebuilt after a loss of Redis; try again later", retry_after_s=5)
