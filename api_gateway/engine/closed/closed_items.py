"""Closed items that Redis does not have any more: how they stand, and what a bid on one of them is answered.

Redis is always asked first. What it does not have in an open shard, and what the archive has as a closed item of which
nothing is missing, has left Redis, and nothing happens to it there. A void brings it back first
(:mod:`api_gateway.engine.closed.returns`), and then Redis is asked again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Final

import msgspec
from redis.asyncio import Redis

from api_gateway.engine.bids.batcher import PendingBid
from api_gateway.engine.closed.reads import KEPT_S
from api_gateway.engine.item_reads import KEPT_BYTES_MAX, Absent, size_of
from api_gateway.engine.loss.known_items import ask, shard_lost
from shared import names
from shared.archive_reads.asking import Asking
from shared.archive_reads.keyed_verdicts import keyed_verdicts
from shared.archive_reads.keys import history_key, state_key
from shared.archive_reads.origin import ArchiveReads, decode_state
from shared.bounded_dict import BoundedDict
from shared.domain.bidding import refusal_by_status
from shared.domain.errors import Unavailable
from shared.read_cache.membership.clock import now_s
from shared.redis_layout.cursors import ask_epoch
from shared.redis_layout.item_hash import ItemState, public_item
from shared.redis_layout.keys import lost_key
from shared.redis_layout.stored_verdicts import StoredVerdict, field_of_bid_id, find_verdict
from shared.redis_layout.verdicts import KEY_REUSED_LINE, RefusedBid

_LOST_KEPT_S: Final = 5.0
_LOST_KEPT_MAX: Final = 10_000
_LOOKS_AT_ONCE: Final = 2
"""Looks for a key. The archive has no index of keys, so one may cost as much as all sealed facts of the item."""
TURN_S: Final = 2.0


class ArchiveAway(Unavailable):
    """The archive cannot be asked now, and Redis does not have the item."""


@dataclass(frozen=True)
class _Told:
    """A closed item as it was told last, and what the archive had said."""

    value: bytes
    item: ItemState

    @cached_property
    def body(self) -> bytes:
        return msgspec.json.encode(public_item(self.item))


class ClosedItems:
    """What the archive tells. Anybody may ask for any id: each question has the bounds of ``reads`` and ``asking``."""

    def __init__(
        self, redis: Redis, reads: ArchiveReads, asking: Asking, *, on_rebuilt: Callable[[], None] = lambda: None
    ) -> None:
        """``on_rebuilt``: told when a shard is found in another epoch, before anything is read of it."""
        self._redis = redis
        self._on_rebuilt = on_rebuilt
        self._epochs: dict[str, int] = {}
        """The epoch of each shard, when it was asked for last."""
        self._reads = reads
        self._asking = asking
        self._looks = asyncio.Semaphore(_LOOKS_AT_ONCE)
        self._asked: dict[str, tuple[float, asyncio.Task[bytes | None]]] = {}
        # Items that are noted as lost, and that the archive does not know as closed: until when its answer is believed.
        # The oldest is first.
        self._lost: dict[str, float] = {}
        self._told = BoundedDict[_Told](bytes_max=KEPT_BYTES_MAX)

    async def find(self, item_id: str, absent: Absent | None = None) -> ItemState | None:
        """An item that Redis does not have, as it stands; None where it is no closed one. While the item does not
        change, each call returns the same object.

        Args:
            absent: what a read of it has just told, where there was one.

        Raises:
            ShardLost: its shard is lost or closed: it may be rebuilt with something that the archive does not have yet.
            ArchiveAway: nobody can tell now, or too many ask.
            Unavailable: Redis cannot be asked.
        """
        shard, clock = names.shard_of(item_id), asyncio.get_running_loop().time
        epoch, is_noted = await self._ask(item_id) if absent is None else absent
        if epoch is None:
            raise shard_lost()
        self._found_in(shard, epoch)
        if is_noted and self._lost.get(item_id, 0.0) > clock():
            return None
        value = await self._state(item_id)
        if value is not None:
            return self._decoded(item_id, value, epoch)
        if is_noted:
            self._lost.pop(item_id, None)
            self._lost[item_id] = clock() + _LOST_KEPT_S
            if len(self._lost) > _LOST_KEPT_MAX:
                del self._lost[next(iter(self._lost))]
        return None

    async def _ask(self, item_id: str) -> Absent:
        shard = names.shard_of(item_id)
        pipeline: Any = self._redis.pipeline(transaction=False)
        ask_epoch(pipeline, shard)
        pipeline.sismember(lost_key(shard), item_id)
        epoch, is_noted = await ask(pipeline.execute())
        return Absent(None if epoch is None else int(epoch), bool(is_noted))

    def _decoded(self, item_id: str, value: bytes, epoch: int) -> ItemState:
        told = self._told.get(item_id)
        if told is None or told.value != value or told.item.state.epoch != epoch:
            told = _Told(value, _in_epoch(decode_state(value), epoch))
            self._told.put(item_id, told, size_of(len(value)))
        return told.item

    def body_of(self, item: ItemState) -> bytes:
        """The public JSON of an item, made once while :meth:`find` tells the same."""
        told = self._told.get(item.terms.item_id)
        return (told if told is not None and told.item is item else _Told(b"", item)).body

    def _found_in(self, shard: str, epoch: int) -> None:
        """Drop what is kept when the shard was rebuilt: a recovery has no event, and may leave closed items out of
        Redis that were there before."""
        if self._epochs.setdefault(shard, epoch) != epoch:
            self._epochs[shard] = epoch
            self._asked.clear()
            self._on_rebuilt()

    async def _state(self, item_id: str) -> bytes | None:
        """Callers who ask for the same item at once share one question to the archive: a crowd may bid on a new id."""
        begun_s, asked = self._asked.get(item_id, (0.0, None))
        # If this process slept meanwhile, the item may have come back, been struck, and left again since.
        if asked is None or now_s() - begun_s > KEPT_S:
            asked = asyncio.create_task(self._read(item_id), name="closed-item")
            self._asked[item_id] = now_s(), asked
            asked.add_done_callback(lambda task: self._answered(item_id, task))
        # A caller that gives up does not end the question for the others.
        return await asyncio.shield(asked)

    async def _read(self, item_id: str) -> bytes | None:
        return await self._get(state_key(item_id))

    async def _get(self, key: str) -> bytes | None:
        """What the archive has under a key.

        Raises:
            ArchiveAway: it cannot be asked, or too many ask.
        """
        try:
            return await self._reads.get(key)
        except Unavailable as error:
            raise ArchiveAway(str(error), retry_after_s=error.retry_after_s) from error

    def _answered(self, item_id: str, task: asyncio.Task[bytes | None]) -> None:
        if self._asked.get(item_id, (0.0, None))[1] is task:
            del self._asked[item_id]
        if not task.cancelled():
            task.exception()  # there may be no caller left

    async def find_many(self, item_ids: Sequence[str]) -> dict[str, ItemState]:
        """The closed items among these, which Redis does not have in open shards; in one question.

        Raises:
            ArchiveAway: nobody can tell now.
            Unavailable: Redis cannot be asked.
        """
        epochs: Any = self._redis.pipeline(transaction=False)
        for item_id in item_ids:
            ask_epoch(epochs, names.shard_of(item_id))
        answers = await ask(epochs.execute())
        epoch_of = {item_id: int(epoch) for item_id, epoch in zip(item_ids, answers, strict=True) if epoch is not None}
        for item_id, epoch in epoch_of.items():
            self._found_in(names.shard_of(item_id), epoch)
        try:
            found = await self._reads.states(list(epoch_of))
        except Unavailable as error:
            raise ArchiveAway(str(error), retry_after_s=error.retry_after_s) from error
        return {item_id: self._decoded(item_id, state, epoch_of[item_id]) for item_id, state in found.items()}

    async def history(self, item_id: str, *, cursor: str | None, limit: int) -> bytes | None:
        """A page of its history as JSON; None where it is no closed item.

        Raises:
            InvalidInput: the cursor is malformed.
            ArchiveAway: nobody can tell now, or too many ask.
        """
        return await self._get(history_key(item_id, limit=limit, cursor=cursor))

    async def verdict(self, item_id: str, user_id: str | None, key: str) -> StoredVerdict | None:
        """What is kept under a key: of this bidder, or without one of anybody. Refusals are not kept.

        Raises:
            Unavailable: it cannot be told now.
        """
        return find_verdict(await self._kept(item_id, user_id, key), user_id, key)

    async def answer(self, item: ItemState, bid: PendingBid) -> bytes:
        """The verdict line of a bid on the item: the one that is kept under its key, or a refusal by its status. It is
        what ``place_bids.lua`` answers while Redis has the item.

        Raises:
            Unavailable: it cannot be told now.
        """
        if bid.key is not None:
            found = await self._kept(bid.item_id, bid.user_id, bid.key)
            stored = find_verdict(found, bid.user_id, bid.key)
            if stored is not None:
                return stored.line if stored.fingerprint == bid.fingerprint else KEY_REUSED_LINE
            if bid.key_is_bid_id and field_of_bid_id(bid.key) in found:
                return KEY_REUSED_LINE
        code = refusal_by_status(item.terms, item.state, item.updated_us)
        assert code is not None, "it is closed"
        state = item.state
        return RefusedBid(code, state.price, state.leader == bid.user_id, item.min_next_bid, state.reserve_met).encode()

    async def _kept(self, item_id: str, user_id: str | None, key: str) -> dict[str, bytes]:
        try:
            async with asyncio.timeout(TURN_S):
                await self._looks.acquire()
        except TimeoutError:
            raise Unavailable("too many ask for bids on closed items; try again", retry_after_s=2) from None
        try:
            return await keyed_verdicts(self._asking.fetch, item_id, user_id, key)
        finally:
            self._looks.release()


def _in_epoch(item: ItemState, epoch: int) -> ItemState:
    """Items have the epoch of their shard. Redis has the newest one, whatever a cache has kept."""
    return msgspec.structs.replace(item, state=replace(item.state, epoch=epoch))
