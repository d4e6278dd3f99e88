"""Items: which exist, in which currency, and how they are opened."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final, NoReturn, cast

from redis.asyncio import Redis

from api_gateway.engine.closed.closed_items import ArchiveAway, ClosedItems
from api_gateway.engine.creation.new_item import NewItem
from api_gateway.engine.creation.openings import Openings
from api_gateway.engine.item_reads import Absent, ItemReads, Reading
from api_gateway.engine.item_scripts import ItemScripts
from api_gateway.engine.loss.known_items import CANNOT_BE_TOLD, KnownItems, TooManyQuestions, ask, shard_lost
from api_gateway.engine.loss.lost_items import LostItems
from api_gateway.engine.loss.witnesses import Witnesses
from shared import names
from shared.domain.auction import Terms
from shared.domain.errors import BiddingError, ItemExists, ItemNotFound, ShardLost, Unavailable
from shared.domain.money import exponent_of
from shared.redis_layout.cursors import ask_epoch, ask_is_open
from shared.redis_layout.item_hash import ItemState
from shared.redis_layout.keys import item_key, lost_key

logger = logging.getLogger(__name__)

KNOWN_ITEMS_MAX: Final = 200_000
READS_MAX: Final = 3
"""How often an item is read that leaves Redis, or comes back, meanwhile."""
KEEPS_MOVING: Final = "the item is leaving Redis, or coming back; try again"


@dataclass(frozen=True, slots=True)
class Found:
    """An item, and whether it has left Redis: then all of it is archived, and only the archive has it."""

    item: ItemState
    has_left: bool = False


class Items:
    """Reads and opens items.

    An item's currency never changes, so it is remembered per process (bounded); everything else is read from Redis.
    """

    def __init__(
        self,
        redis: Redis,
        scripts: ItemScripts,
        witnesses: Witnesses,
        lost_items: LostItems,
        closed: ClosedItems,
        *,
        open_catalogue: bool,
        on_outbox: Callable[[str], None],
    ) -> None:
        self._known = KnownItems(redis, witnesses)
        self.reads = ItemReads(redis)
        self.openings = Openings(scripts, self._known, self._used, on_outbox=on_outbox)
        self._opening: dict[str, asyncio.Task[None]] = {}
        self._lost_items = lost_items
        self.closed = closed
        self._redis = redis
        self._open_catalogue = open_catalogue
        self.known: dict[str, int] = {}
        """Item id to the decimals of its currency; a miss says nothing."""

    async def find_exponent(self, item_id: str) -> int | None:
        """Decimals of the item's currency, None where there is no such item.

        Raises:
            Unavailable: Redis cannot be asked.
        """
        known = self.known.get(item_id)
        if known is not None:
            return known
        key = item_key(item_id)
        currency = await ask(cast("Awaitable[bytes | None]", self._redis.hget(key, "currency")))
        if currency is None:
            return None
        if len(self.known) >= KNOWN_ITEMS_MAX:
            self.known.pop(next(iter(self.known)))
        self.known[item_id] = exponent_of(currency.decode())
        return self.known[item_id]

    async def open_by_default(self, item_id: str) -> None:
        """Open an unknown item with default terms, where the catalogue is open and the item is new.

        Raises:
            ItemNotFound: the catalogue is not open.
            ShardLost: it is not new: Redis has lost the item, or its whole shard. Nothing was created.
            Unavailable: nothing was created (say, because nobody can tell now whether it is new), or that is unknown;
                trying again is safe.
        """
        if not self._open_catalogue:
            await self.absent(item_id)
        # The first of many bids on a new item asks and opens it, for all of them.
        opening = self._opening.get(item_id)
        if opening is None:
            opening = self._opening[item_id] = asyncio.create_task(self._open_if_new(item_id), name="open-item")
            opening.add_done_callback(lambda _: self._opening.pop(item_id, None))
        await asyncio.shield(opening)

    async def _open_if_new(self, item_id: str) -> None:
        """Open the item, unless it existed before: it must not begin at zero only because its hash is gone."""
        with contextlib.suppress(ItemExists):  # another request, or another gateway, opened it in between
            await self.create(NewItem(Terms(item_id=item_id, start_us=0), name=item_id, auto_opened=True))

    async def lost(self, item_id: str) -> ShardLost:
        """The error for a known item that is gone while its shard lives. Notes the item as lost."""
        self.known.pop(item_id, None)
        await self._lost_items.note(item_id)
        return ShardLost("this item was lost and must be rebuilt; try again later", retry_after_s=5)

    async def left(self, item_id: str, absent: Absent | None = None) -> ItemState | None:
        """The item, if it was closed and has left Redis, which does not have it. None where it has not, and where the
        archive cannot be asked: then :meth:`open_by_default`, :meth:`absent` and :meth:`gone` find out what else is
        known of it, and do not take it for a new one.

        Args:
            absent: what a read of it has just told, where there was one.

        Raises:
            ShardLost: its shard is lost.
            Unavailable: Redis cannot be asked.
        """
        try:
            item = await self.closed.find(item_id, absent)
        except ArchiveAway as error:
            logger.debug("item %s: %s", item_id, error)
            return None
        if item is not None:
            self.known.pop(item_id, None)
        return item

    async def surely_left(self, item_id: str) -> ItemState | None:
        """The same, for callers that must not go on where the archive cannot be asked.

        Raises:
            ShardLost: the item is lost, or its shard.
            Unavailable: nobody can tell now what became of the item, or Redis cannot be asked.
        """
        try:
            item = await self.closed.find(item_id)
        except ArchiveAway as error:
            # Somebody else may know that it is lost.
            with contextlib.suppress(ItemNotFound):
                await self.absent(item_id)
            raise Unavailable(str(error), retry_after_s=error.retry_after_s) from error
        if item is not None:
            self.known.pop(item_id, None)
        return item

    async def gone(self, item_id: str) -> NoReturn:
        """Raise the error for an item that Redis does not have, and had a moment ago, as this process knows. It has not
        left as a closed item.

        That alone is not enough to note it as lost. If it was neither published nor archived when Redis lost it, it is
        nowhere: no rebuilding brings it back, and nobody would ever remove the note.

        Raises:
            ShardLost: it is lost, or nobody can tell now.
            ItemNotFound, Unavailable: there is no such item any more; in an open catalogue the next bid opens it.
        """
        self.known.pop(item_id, None)
        try:
            is_known = await self._known.is_known(item_id)
        except ShardLost:
            raise
        except Unavailable as error:
            raise ShardLost(CANNOT_BE_TOLD, retry_after_s=5) from error
        if is_known:
            raise await self._lost_or_left(item_id)
        if self._open_catalogue:
            raise Unavailable(
                "this item was lost, and nothing is known of it anywhere; it begins anew", retry_after_s=1
            )
        raise ItemNotFound(item_id)

    async def get(self, item_id: str, *, may_open: bool = True) -> ItemState:
        """The item as it stands.

        Raises:
            ItemNotFound: no such item, and it may not be opened.
            Unavailable: Redis cannot be asked, or has lost the item's shard; or the archive cannot, and Redis does not
                have the item.
        """
        return (await self.find(item_id, may_open=may_open)).item

    async def find(self, item_id: str, *, may_open: bool = True) -> Found:
        """The item as it stands, and where it is. Raises as :meth:`get`."""
        reading = await self.reads.get(item_id)
        if isinstance(reading, Absent):
            return await self.find_absent(item_id, reading, may_open=may_open)
        return Found(reading.item)

    async def find_absent(self, item_id: str, absent: Absent, *, may_open: bool = True) -> Found:
        """The same for an item that was just read, and that Redis does not have."""
        item = await self.left(item_id, absent)
        if item is not None:
            return Found(item, has_left=True)
        # The item may have come back meanwhile for a void. Then the archive does not tell of it as closed until it has
        # the void.
        reading = await self.reads.get(item_id)
        if not isinstance(reading, Absent):
            return Found(reading.item)
        if not may_open:
            await self.absent(item_id)
        await self.open_by_default(item_id)
        reading = await self.reads.get(item_id)
        if isinstance(reading, Absent):
            raise ItemNotFound(item_id)
        return Found(reading.item)

    async def is_same(self, item: ItemState) -> bool:
        """Whether the item, which was read from Redis, has been there since, and its shard is unchanged: so what was
        not found beside the item is really not there. False where it has left meanwhile, or left and come back: read it
        again.

        Raises:
            ShardLost: its shard was closed meanwhile, or rebuilt: epochs only rise.
            Unavailable: Redis cannot be asked.
        """
        item_id = item.terms.item_id
        pipeline: Any = self._redis.pipeline()
        ask_epoch(pipeline, names.shard_of(item_id))
        pipeline.hmget(item_key(item_id), ["id", "returned_us"])
        epoch, (found, returned_us) = await ask(pipeline.execute())
        if epoch is None or int(epoch) != item.state.epoch:
            raise shard_lost()
        return found is not None and (int(returned_us) if returned_us else None) == item.returned_us

    async def readings(self, item_ids: Sequence[str]) -> dict[str, Reading]:
        """Those of these items that Redis has, in open shards.

        Raises:
            Unavailable: Redis cannot be asked, or too many items wait to be read.
        """
        asked = {item_id: self.reads.read(item_id) for item_id in item_ids}
        found: dict[str, Reading] = {}
        for item_id, answer in asked.items():
            with contextlib.suppress(ShardLost):
                reading = await asyncio.shield(answer)
                if isinstance(reading, Reading):
                    found[item_id] = reading
        return found

    async def create(self, item: NewItem) -> ItemState:
        """Open an item. Raises as the result of :meth:`Openings.open` does."""
        return await asyncio.shield(self.openings.open(item))

    async def _used(self, item_id: str) -> BiddingError:
        """Why a known id cannot be given to a new item: it is there, or was closed long ago, or is lost."""
        if await self._is_there(item_id):
            return ItemExists(item_id)
        error = await self._lost_or_left(item_id)
        return error if isinstance(error, ShardLost) else ItemExists(item_id)

    async def absent(self, item_id: str) -> NoReturn:
        """Raise the error for an item that Redis does not have, and that has not left it: there is no such item, or
        Redis has lost it, or its whole shard.

        An item that was found to be lost is not asked about again.

        Raises:
            ItemNotFound, ShardLost: one of them.
            Unavailable: nobody can tell now, or too many ask for what is not there.
        """
        shard = names.shard_of(item_id)
        pipeline: Any = self._redis.pipeline(transaction=False)
        ask_is_open(pipeline, shard)
        pipeline.sismember(lost_key(shard), item_id)
        pipeline.exists(item_key(item_id))
        lives, is_noted, is_there = await ask(pipeline.execute())
        if not lives:
            raise shard_lost()
        if is_there:
            raise Unavailable(KEEPS_MOVING, retry_after_s=1)
        if is_noted:
            raise await self.lost(item_id)
        try:
            is_known = await self._known.is_known(item_id)
        except (ShardLost, TooManyQuestions):
            raise
        except Unavailable as error:
            if item_id in self.known:
                raise ShardLost(CANNOT_BE_TOLD, retry_after_s=5) from error
            # It may be a closed one, which the archive alone has.
            raise
        if is_known:
            raise await self._lost_or_left(item_id)
        raise ItemNotFound(item_id)

    async def _lost_or_left(self, item_id: str) -> Unavailable:
        """The error for an item that is known, and that Redis does not have. Only one that has not left is lost."""
        try:
            has_left = await self.closed.find(item_id) is not None
        except ArchiveAway:
            return ShardLost(CANNOT_BE_TOLD, retry_after_s=5)
        # Ask Redis last: the item may have come back while the archive was asked, which then does not tell of it for a
        # moment.
        if has_left or await self._is_there(item_id):
            return Unavailable(KEEPS_MOVING, retry_after_s=1)
        return await self.lost(item_id)

    async def _is_there(self, item_id: str) -> bool:
        exists: Awaitable[Any] = self._redis.exists(item_key(item_id))
        return bool(await ask(exists))

    async def note_missing(self, listed: list[str], missing: list[str]) -> None:
        """Note the ``missing`` items of a page of the archive's list: Redis lacks them.

        Raises:
            ShardLost: it lacks all of them, and the shard of one is gone: there is no list to show.
            Unavailable: Redis cannot be asked.
        """
        if not missing:
            return
        pipeline: Any = self._redis.pipeline(transaction=False)
        for item_id in missing:
            ask_is_open(pipeline, names.shard_of(item_id))
            pipeline.exists(item_key(item_id))
        answers = await ask(pipeline.execute())
        lives, are_there = answers[::2], answers[1::2]
        if len(missing) == len(listed) and not all(lives):
            raise shard_lost()
        # Some may have come back meanwhile.
        states = zip(missing, lives, are_there, strict=True)
        alone = [item_id for item_id, is_alive, is_there in states if is_alive and not is_there]
        if alone:
            await self._lost_items.note(*alone)
