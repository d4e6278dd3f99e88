"""Items: which exist, in which currency, and how they are opened."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, NoReturn, cast

import msgspec
from redis.asyncio import Redis

from api_gateway.engine.closed.closed_items import ArchiveAway, ClosedItems
from api_gateway.engine.item_scripts import ItemScripts
from api_gateway.engine.loss.known_items import CANNOT_BE_TOLD, KnownItems, TooManyQuestions, ask, shard_lost
from api_gateway.engine.loss.lost_items import LostItems
from api_gateway.engine.loss.witnesses import Witnesses
from shared import names
from shared.domain.auction import Terms
from shared.domain.errors import ItemExists, ItemNotFound, ShardLost, TermsInvalid, Unavailable
from shared.domain.increments import encode_steps
from shared.domain.money import exponent_of
from shared.redis_layout.cursors import ask_epoch, ask_fence, ask_is_open, decode_fence
from shared.redis_layout.item_hash import ItemState, decode_item, item_fields
from shared.redis_layout.keys import item_key, lost_key

logger = logging.getLogger(__name__)

KNOWN_ITEMS_MAX: Final = 200_000
READS_MAX: Final = 3
"""How often an item is read that leaves Redis, or comes back, meanwhile."""
KEEPS_MOVING: Final = "the item is leaving Redis, or coming back; try again"
_OPEN_TRIES: Final = 5


@dataclass(frozen=True, slots=True)
class Found:
    """An item, and whether it has left Redis: then all of it is archived, and only the archive has it."""

    item: ItemState
    has_left: bool = False


@dataclass(frozen=True, slots=True)
class NewItem:
    """What a seller asks for. ``start_us`` None means now; with ``length_us`` the end is counted from the start.
    ``id_is_random``: the id was made here, so no item can have had it before.

    ``terms.start_us`` is not used: the script takes the start from here, or Redis TIME.
    """

    terms: Terms
    name: str
    description: str = ""
    start_us: int | None = None
    length_us: int | None = None
    auto_opened: bool = False
    id_is_random: bool = False


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
        self._opening: dict[str, asyncio.Task[None]] = {}
        self._lost_items = lost_items
        self.closed = closed
        self._redis = redis
        self._scripts = scripts
        self._open_catalogue = open_catalogue
        self._on_outbox = on_outbox
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
        # Of many first bids on one item, one asks and opens.
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

    async def left(self, item_id: str) -> ItemState | None:
        """The item, if it was closed and has left Redis, which does not have it. None where it has not, and where the
        archive cannot be asked: then :meth:`open_by_default`, :meth:`absent` and :meth:`gone` find out what else is
        known of it, and do not take it for a new one.

        Raises:
            ShardLost: its shard is lost.
            Unavailable: Redis cannot be asked.
        """
        try:
            item = await self.closed.find(item_id)
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
        """Raise the error for an item that Redis does not have, and had a moment ago, as this process knows. It is none
        that has left.

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
        fields = await self._read(item_id)
        if not fields:
            item = await self.left(item_id)
            if item is not None:
                return Found(item, has_left=True)
            if not may_open:
                await self.absent(item_id)
            await self.open_by_default(item_id)
            fields = await self._read(item_id)
            if not fields:
                raise ItemNotFound(item_id)
        return Found(decode_item(fields))

    async def _read(self, item_id: str) -> dict[bytes, bytes]:
        """The item's hash, empty where there is none.

        Raises:
            ShardLost: its shard is closed. What Redis has of it is an older copy, or half rebuilt: the price may be
                below one that was told already, and verdicts of repeated bids are missing.
        """
        pipeline = self._redis.pipeline()
        pipeline.hgetall(item_key(item_id))
        ask_is_open(pipeline, names.shard_of(item_id))
        fields, is_open = await ask(pipeline.execute())
        if fields and not is_open:
            raise shard_lost()
        return cast("dict[bytes, bytes]", fields)

    async def is_same(self, item: ItemState) -> bool:
        """Whether the item, which was read from Redis, is still there, and its shard unchanged: so what was not found
        beside the item is really not there. False where it has left meanwhile: read it again.

        Raises:
            ShardLost: its shard was closed meanwhile, or rebuilt: epochs only rise.
            Unavailable: Redis cannot be asked.
        """
        item_id = item.terms.item_id
        pipeline: Any = self._redis.pipeline()
        ask_epoch(pipeline, names.shard_of(item_id))
        pipeline.exists(item_key(item_id))
        epoch, is_there = await ask(pipeline.execute())
        if epoch is None or int(epoch) != item.state.epoch:
            raise shard_lost()
        return bool(is_there)

    async def get_many(self, item_ids: list[str]) -> list[ItemState | None]:
        """Several items in one round trip; None for those that Redis does not hold, or whose shard is closed."""
        pipeline = self._redis.pipeline(transaction=False)
        for item_id in item_ids:
            pipeline.hgetall(item_key(item_id))
            ask_is_open(pipeline, names.shard_of(item_id))
        found = await ask(pipeline.execute())
        return [
            decode_item(fields) if fields and is_open else None
            for fields, is_open in zip(found[::2], found[1::2], strict=True)
        ]

    async def create(self, item: NewItem) -> ItemState:
        """Open an item.

        Raises:
            ItemExists: the id is taken.
            TermsInvalid: the end is not in the future.
            ShardLost: it is the id of an item that Redis has lost, or of a lost shard. Nothing was created.
            Unavailable: nothing was created (say, because nobody can tell now whether the id is new), or that is
                unknown; trying the same id again is safe.
        """
        item_id, terms = item.terms.item_id, item.terms
        for _ in range(_OPEN_TRIES):
            fence = "" if item.id_is_random else await self._require_new(item_id)
            result = await ask(
                self._scripts.open_item(
                    item_id,
                    start_us=item.start_us,
                    end_us=None if item.length_us is not None else terms.end_us,
                    length_us=item.length_us,
                    event_members=created_members(item),
                    fields=item_fields(terms, name=item.name, description=item.description),
                    fence=fence,
                )
            )
            if not result.fenced:
                break
        else:
            raise Unavailable("other items are leaving Redis right now; try again", retry_after_s=1)
        if result.exists:
            raise ItemExists(item_id)
        if not result.created:
            raise TermsInvalid("end_time", "must be in the future and after start_time")
        self._on_outbox(names.shard_of(item_id))
        return await self.get(item_id, may_open=False)

    async def _require_new(self, item_id: str) -> str:
        """The shard's fence, from before it was asked whether anybody ever had this id: nobody had.

        Raises:
            ItemExists, ShardLost: somebody had.
            Unavailable: nobody can tell now.
        """
        key = item_key(item_id)
        pipeline: Any = self._redis.pipeline()
        ask_fence(pipeline, names.shard_of(item_id))
        pipeline.exists(key)
        answer, is_there = await ask(pipeline.execute())
        if is_there:
            raise ItemExists(item_id)
        fence = decode_fence(answer)
        if fence is None:
            raise shard_lost()
        if await self._known.is_known(item_id, from_now=True):
            # Opened in between, or closed long ago.
            if await ask(self._redis.exists(key)) or await self.left(item_id) is not None:
                raise ItemExists(item_id)
            raise await self._lost_or_left(item_id)
        return fence

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
        if is_noted and not is_there:
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
        if is_known and not await ask(self._redis.exists(item_key(item_id))):
            raise await self._lost_or_left(item_id)
        raise ItemNotFound(item_id)

    async def _lost_or_left(self, item_id: str) -> Unavailable:
        """The error for an item that is known, and that Redis does not have. Only one that has not left is lost."""
        try:
            has_left = await self.closed.find(item_id) is not None
        except ArchiveAway:
            return ShardLost(CANNOT_BE_TOLD, retry_after_s=5)
        if has_left:
            return Unavailable("this item has just left Redis; try again", retry_after_s=1)
        return await self.lost(item_id)

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
        lives = await ask(pipeline.execute())
        alone = [item_id for item_id, is_alive in zip(missing, lives, strict=True) if is_alive]
        if len(missing) == len(listed) and len(alone) < len(missing):
            raise shard_lost()
        if alone:
            await self._lost_items.note(*alone)


def created_members(item: NewItem) -> str:
    """The `created` event's own members, as JSON that the script puts between its own."""
    terms = item.terms
    soft = terms.soft_close
    members = {
        "name": item.name,
        "description": item.description,
        "seller_id": terms.seller_id,
        "start_price": terms.start_price,
        "reserve_price": terms.reserve_price,
        "buy_now_price": terms.buy_now_price,
        "increment_kind": terms.increment.kind,
        "increment_value": terms.increment.value,
        "increment_steps": encode_steps(terms.increment),
        "soft_close": ""
        if soft is None
        else msgspec.json.encode(
            {
                "trigger_us": soft.trigger_us,
                "extend_us": soft.extend_us,
                "mode": soft.mode,
                "max_count": soft.max_count,
                "hard_end_us": soft.hard_end_us,
            }
        ).decode(),
        "auto_opened": item.auto_opened,
    }
    return msgspec.json.encode(members).decode()[1:-1] + ","
