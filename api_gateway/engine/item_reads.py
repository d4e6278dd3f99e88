"""Reads of items as Redis has them: those of one moment share one round trip.

As with bids, reads that come while a round trip is under way wait, and the next one carries all of them, each item
once. So what is told is never older than its request, and a crowd that looks at one item asks Redis for it once.

What was read last is kept, with the bytes that were told of it. Redis says whether it still stands.
"""

from __future__ import annotations

import asyncio
import logging
from asyncio import Future
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, Final, NamedTuple

import msgspec
from redis.asyncio import Redis

from api_gateway.engine.loss.known_items import ask, shard_lost
from shared import names
from shared.bounded_dict import BoundedDict
from shared.clients.redis import told_of
from shared.domain.errors import Overloaded, Unavailable
from shared.redis_layout.item_hash import ItemState, decode_item, public_item
from shared.redis_layout.keys import cursors_key, item_key, lost_key
from shared.redis_layout.scripts import Call, Script

logger = logging.getLogger(__name__)

ITEMS_PER_TRIP_MAX: Final = 256
"""The most items that are read at once: about a millisecond of Redis."""
WAITING_MAX: Final = 10_000
"""The most items that wait to be read. Further ones are refused."""
KEPT_BYTES_MAX: Final = 32 * 1024**2
"""The most bytes that the items read last may take: some 2,500 items with a line or two of text."""

_VERSION: Final = (b"epoch", b"seq", b"updated_us", b"leader_max", b"returned_us")
_NOTHING: Final = ("",) * len(_VERSION)
_NONE: Final = 0
_CLOSED: Final = 1
_SAME: Final = 2


def size_of(raw_bytes: int) -> int:
    """What an item takes at most, decoded and rendered, in bytes. Measured: a character that is escaped takes six bytes
    in JSON, and one that is rare makes all others of its text take four."""
    return 6_000 + 9 * raw_bytes


@dataclass(frozen=True)
class Reading:
    """An item as Redis had it at one moment."""

    fields: dict[bytes, bytes]

    @property
    def version(self) -> tuple[bytes, ...]:
        """Fields of which at least one changes with every change of the item."""
        # A damaged hash may lack one of these. The empty text equals no value in Redis, so Redis sends the hash anew.
        return tuple(self.fields.get(name, b"") for name in _VERSION)

    @cached_property
    def item(self) -> ItemState:
        """Its terms and its state."""
        return decode_item(self.fields)

    @cached_property
    def body(self) -> bytes:
        """Its public JSON."""
        return msgspec.json.encode(public_item(self.item))


class Absent(NamedTuple):
    """Redis does not have an item. ``epoch``: of its shard, None where that is lost or closed. ``is_noted``: the item
    is noted as lost. Both are of one moment."""

    epoch: int | None
    is_noted: bool


class ItemReads:
    """Reads items out of open shards."""

    _read: Final = Script.read(Path(__file__).parent / "lua" / "read_item.lua")

    def __init__(self, redis: Redis) -> None:
        self._redis = redis
        self._waiting: dict[str, Future[Reading | Absent]] = {}
        self._reading: asyncio.Task[None] | None = None
        self._kept = BoundedDict[Reading](bytes_max=KEPT_BYTES_MAX)

    def read(self, item_id: str) -> Future[Reading | Absent]:
        """The item as it stands after this call, or that there is none.

        The future is shared: do not cancel it. Its result raises:
            ShardLost: its shard is closed. What Redis has of it is an older copy, or half rebuilt: the price may be
                below one that was told already, and verdicts of repeated bids are missing.
            Overloaded: too many items wait to be read.
            Unavailable: Redis cannot be asked.
        """
        waiting = self._waiting.get(item_id)
        if waiting is not None:
            return waiting
        answer: Future[Reading | Absent] = asyncio.get_running_loop().create_future()
        if len(self._waiting) >= WAITING_MAX:
            _fail([answer], Overloaded("too many items are being read; try again"))
            return answer
        self._waiting[item_id] = answer
        if self._reading is None:
            self._reading = asyncio.create_task(self._read_all(), name="read-items")
        return answer

    async def get(self, item_id: str) -> Reading | Absent:
        """The result of :meth:`read`. A caller that is cancelled does not end it for the others."""
        return await asyncio.shield(self.read(item_id))

    async def _read_all(self) -> None:
        """Read until nobody waits."""
        asked: dict[str, Future[Reading | Absent]] = {}
        error = Unavailable("the item could not be read; try again")
        try:
            while self._waiting:
                item_ids = list(islice(self._waiting, ITEMS_PER_TRIP_MAX))
                asked = {item_id: self._waiting.pop(item_id) for item_id in item_ids}
                await self._read_some(asked)
        except Unavailable as unavailable:
            # Those who wait for the next round trip would wait for its time-out as well.
            error = unavailable
        except Exception:
            logger.exception("items cannot be read")
        finally:
            self._reading = None
            _fail([*asked.values(), *self._waiting.values()], error)
            self._waiting.clear()

    async def _read_some(self, asked: dict[str, Future[Reading | Absent]]) -> None:
        kept = {item_id: self._kept.get(item_id) for item_id in asked}
        calls: list[Call] = [
            (_keys(item_id), (*(_NOTHING if reading is None else reading.version), item_id))
            for item_id, reading in kept.items()
        ]
        answers = await ask(self._read.run_each(self._redis, calls))
        for (item_id, future), answer in zip(asked.items(), answers, strict=True):
            if isinstance(answer, Exception):
                _fail([future], Unavailable(f"Redis cannot be asked: {told_of(answer)}"))
            elif answer == _CLOSED:
                _fail([future], shard_lost())
            else:
                future.set_result(self._found(item_id, answer, kept[item_id]))

    def _found(self, item_id: str, answer: Any, kept: Reading | None) -> Reading | Absent:
        if kept is not None and answer == _SAME:
            return kept
        self._kept.remove(item_id)
        if answer[0] == _NONE:
            _, epoch, is_noted = answer
            return Absent(None if epoch is None else int(epoch), bool(is_noted))
        reading = Reading(dict(zip(answer[::2], answer[1::2], strict=True)))
        self._kept.put(item_id, reading, size_of(sum(map(len, reading.fields.values()))))
        return reading


def _keys(item_id: str) -> tuple[str, ...]:
    shard = names.shard_of(item_id)
    return item_key(item_id), cursors_key(shard), lost_key(shard)


def _fail(answers: Iterable[Future[Reading | Absent]], error: Unavailable) -> None:
    for answer in answers:
        if not answer.done():
            answer.set_exception(error)
            answer.exception()  # who asked may have gone
