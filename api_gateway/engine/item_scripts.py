"""The scripts on items that are not on the hot path: one method per script."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple

import msgspec
from redis.asyncio import Redis
from redis.exceptions import (
    ClusterDownError,
    MasterDownError,
    OutOfMemoryError,
    ReadOnlyError,
    ResponseError,
    TryAgainError,
)

from shared import names
from shared.clients.cluster.pipeline import NodeAway
from shared.domain.errors import (
    BiddingError,
    BidNotFound,
    BidStruck,
    EndStays,
    ItemNotFound,
    KeyReused,
    LeadLacksCredit,
    OutboxFull,
    ShardLost,
    StateConflict,
    Unavailable,
)
from shared.domain.lifecycle import END_IS_OPEN, HAS_NO_END, MOVED_MAX_US, NOT_LATER, moved_too_far
from shared.domain.voiding import cause_of
from shared.redis_layout.cursors import decode_fence
from shared.redis_layout.end_moves import MOVE_REQUESTS_KEPT, LaterEnd, move_request
from shared.redis_layout.keys import (
    accepted_key,
    bidders_key,
    cursors_key,
    deadlines_key,
    item_key,
    older_refusals_key,
    opened_key,
    outbox_key,
    proxies_key,
    recent_key,
    refusals_key,
    verdicts_key,
)
from shared.redis_layout.limits import RECENT_EVENTS
from shared.redis_layout.scripts import Call, Script

LUA: Final = Path(__file__).parent / "lua"
"""The folder of the scripts on items."""

DUE: Final = Script.read(LUA / "due.lua")
"""Tells of many shards what is due, by :meth:`~shared.redis_layout.scripts.Script.run_for_few`."""

OK, NO_ITEM, SHARD_LOST, OUTBOX_FULL, CONFLICT, FENCED = range(6)
"""How a script's answer begins."""

Transition = Literal["pause", "resume", "cancel"]

_OPENED_TOGETHER_MAX: Final = 32
"""Items that are created by one command: each writes twice as much as a bid does."""

_END_STAYS: Final = {5: HAS_NO_END, 6: END_IS_OPEN, 7: NOT_LATER}

READ_ONLY: Final = "can't write against a read only replica"
_OUT_OF_MEMORY: Final = "command not allowed when used memory"
_REFUSALS: Final = ("MISCONF", "LOADING", "BUSY", "NOREPLICAS", "CLUSTERDOWN", "TRYAGAIN", "MASTERDOWN")
_CLASSES: Final = (OutOfMemoryError, ReadOnlyError, MasterDownError, ClusterDownError, TryAgainError)


@dataclass(frozen=True, slots=True)
class ScriptLimits:
    """Bounds that the scripts apply.

    Attributes:
        outbox_entries_max: entries of a shard that may wait to be archived; past it bids are refused with 503.
        recent_events: events per item kept next to its state.
        refusals_kept: most verdicts of refused bids kept per item, in two halves; at least the latest half is there.
        refusals_kept_of_one: how many of these may be of one bidder, in two halves as well.
        refusals_kept_s: how long they are kept after the last one.
    """

    outbox_entries_max: int = 50_000
    recent_events: int = RECENT_EVENTS
    refusals_kept: int = 512
    refusals_kept_of_one: int = 32
    refusals_kept_s: int = 1_800


@lru_cache(maxsize=8_192)
def item_keys(item_id: str) -> tuple[str, ...]:
    """The keys of an item, as ``begin`` in ``lib/item.lua`` names them."""
    shard = names.shard_of(item_id)
    return (
        item_key(item_id),
        proxies_key(item_id),
        recent_key(item_id),
        outbox_key(shard),
        cursors_key(shard),
        deadlines_key(shard),
        bidders_key(item_id),
        accepted_key(item_id),
        verdicts_key(item_id),
        refusals_key(item_id),
        older_refusals_key(item_id),
    )


@lru_cache(maxsize=8)
def _of_deadlines(shards: tuple[str, ...]) -> Sequence[Call]:
    """Calls of :data:`DUE`: nearly always for the same shards as the last time."""
    return [((deadlines_key(shard),), ()) for shard in shards]


def refused_by_script(status: int) -> Unavailable:
    if status == SHARD_LOST:
        return ShardLost("this item is being rebuilt after a loss of Redis; try again later", retry_after_s=5)
    return OutboxFull("the archive cannot keep up, bids are not taken for now", retry_after_s=5)


def is_refused_by_redis(error: ResponseError) -> bool:
    """Whether Redis takes no such command now, from nobody. All of this is checked before a script's first write takes
    effect. Any other error is a matter of that one call, and a script may have failed half-way."""
    # The client takes the first word off an error that it has a class for; inside a script, Redis 6.2 hides that word.
    text = str(error)
    return isinstance(error, _CLASSES) or text.startswith(_REFUSALS) or _OUT_OF_MEMORY in text or READ_ONLY in text


def _entry_of(answer: Any, item_id: str, operation: str) -> int:
    status = int(answer[0])
    if status == OK:
        return int(answer[1])
    if status == NO_ITEM:
        raise ItemNotFound(item_id)
    if status == CONFLICT:
        raise StateConflict(item_id, answer[1].decode(), operation)
    raise refused_by_script(status)


def _of_this_call(error: Exception) -> ResponseError:
    """An error that says nothing about other calls; any other one is raised."""
    if isinstance(error, NodeAway) or (isinstance(error, ResponseError) and not is_refused_by_redis(error)):
        return error
    raise error


def _json(text: str) -> str:
    return msgspec.json.encode(text).decode()


class ItemScripts:
    """The scripts that are not on the hot path; they use the pool like any other command."""

    _open: Final = Script.read(LUA / "open_item.lua")
    _traces: Final = Script.read(LUA / "find_traces.lua")
    _advance: Final = Script.read(LUA / "advance.lua", libraries=["item", "one_item"])
    _void: Final = Script.read(LUA / "void.lua", libraries=["item", "bidding", "one_item"])
    _transitions: Final[dict[Transition, Script]] = {
        "pause": Script.read(LUA / "pause.lua", libraries=["item", "one_item"]),
        "resume": Script.read(LUA / "resume.lua", libraries=["item", "one_item"]),
        "cancel": Script.read(LUA / "cancel.lua", libraries=["item", "one_item"]),
    }
    _extend: Final = Script.read(LUA / "extend.lua", libraries=["item", "one_item"])

    def __init__(self, redis: Redis, limits: ScriptLimits) -> None:
        self._redis = redis
        self._limits = limits

    async def open_item(
        self,
        item_id: str,
        *,
        start_us: int | None,
        end_us: int | None,
        length_us: int | None,
        event_members: str,
        fields: dict[str, str],
        fence: str = "",
    ) -> OpenResult:
        """Create an item; atomic.

        Args:
            event_members: the JSON members of the `created` event.
            fence: of the shard, from before it was asked whether the id is new
                (:func:`shared.redis_layout.cursors.decode_fence`); empty where nobody can have had it.

        Raises:
            ShardLost, OutboxFull: nothing was created.
            RedisError, OSError: unknown whether it was created; the id makes a second try safe.
        """
        call = self.opening(
            item_id,
            start_us=start_us,
            end_us=end_us,
            length_us=length_us,
            event_members=event_members,
            fields=fields,
            fence=fence,
        )
        return _opened(await self._open.run(self._redis, *call))

    def opening(
        self,
        item_id: str,
        *,
        start_us: int | None,
        end_us: int | None,
        length_us: int | None,
        event_members: str,
        fields: dict[str, str],
        fence: str,
    ) -> Call:
        """One call for :meth:`open_items`, with the arguments of :meth:`open_item`."""
        shard = names.shard_of(item_id)
        keys = [
            item_key(item_id),
            recent_key(item_id),
            outbox_key(shard),
            cursors_key(shard),
            deadlines_key(shard),
            opened_key(shard),
        ]
        flat = [text for pair in fields.items() for text in pair]
        head = [
            item_id,
            str(self._limits.outbox_entries_max),
            "" if start_us is None else str(start_us),
            "" if end_us is None else str(end_us),
            "" if length_us is None else str(length_us),
            event_members,
            fence,
        ]
        return keys, [*head, *flat]

    async def open_items(self, calls: Sequence[Call]) -> list[OpenResult | Unavailable | ResponseError]:
        """Create several items in one round trip; each is atomic, and has its own result, or what went wrong.

        Raises:
            RedisError, OSError, TimeoutError: unknown which were created; their ids make a second try safe.
        """
        results: list[OpenResult | Unavailable | ResponseError] = []
        for answer in await self._open.run_each(self._redis, calls, together_max=_OPENED_TOGETHER_MAX):
            if isinstance(answer, ResponseError):
                # An error that refuses a whole command, too: the items of an earlier command are created, and their
                # callers must learn of it.
                results.append(answer)
                continue
            try:
                results.append(_opened(answer))
            except Unavailable as error:
                results.append(error)
        return results

    async def find_traces(self, item_ids: Sequence[str]) -> list[Traces | ResponseError]:
        """What Redis has of these ids, which somebody wants to give to new items; one round trip.

        Raises:
            RedisError, OSError, TimeoutError: Redis cannot be asked.
        """
        calls: list[Call] = []
        for item_id in item_ids:
            shard = names.shard_of(item_id)
            calls.append(([item_key(item_id), cursors_key(shard), opened_key(shard)], [item_id]))
        found: list[Traces | ResponseError] = []
        for answer in await self._traces.run_each(self._redis, calls):
            if isinstance(answer, Exception):
                found.append(_of_this_call(answer))
            else:
                *fence, is_there, opened = answer
                found.append(Traces(decode_fence(fence), bool(is_there), opened is not None))
        return found

    async def transition(self, name: Transition, item_id: str, *, reason: str, by: str) -> int:
        """Pause, resume or cancel an item; atomic. Returns the outbox entry.

        Raises:
            ItemNotFound, StateConflict, ShardLost, OutboxFull: nothing was changed.
            RedisError, OSError: unknown whether it was done; the item's status tells.
        """
        arguments = [*self._head(item_id), _json(reason), _json(by)]
        answer = await self._transitions[name].run(self._redis, item_keys(item_id), arguments)
        return _entry_of(answer, item_id, name)

    async def extend(self, item_id: str, to: LaterEnd, *, reason: str, by: str) -> int:
        """Move the end of an item later; atomic. Returns the outbox entry, 0 where this request was carried out before.

        Raises:
            EndStays, KeyReused, and as :meth:`transition`.
        """
        asked = ["" if number is None else str(number) for number in (to.end_us, to.by_us)]
        request = "" if to.key is None else move_request(by, to.key, ",".join(asked))
        arguments = [*self._head(item_id), _json(reason), _json(by), *asked, str(MOVED_MAX_US), request]
        answer = await self._extend.run(self._redis, item_keys(item_id), [*arguments, str(MOVE_REQUESTS_KEPT)])
        match int(answer[0]):
            case 5 | 6 | 7 as reply:
                raise EndStays(item_id, _END_STAYS[reply])
            case 8:
                raise EndStays(item_id, moved_too_far(int(answer[1])))
            case 9:
                raise KeyReused(to.key or "")
        return _entry_of(answer, item_id, "extend")

    async def void(self, item_id: str, bid_id: str, *, count: Sequence[str], reason: str, by: str) -> int | None:
        """Strike an accepted bid; atomic.

        ``count``: :meth:`api_gateway.engine.bids.counting.Count.arguments`, or nothing.

        Returns the outbox entry; None where nothing was done and the item's bids have to be counted (again).

        Raises:
            BidNotFound, BidStruck, LeadLacksCredit, and as :meth:`transition`.
        """
        arguments = [*self._head(item_id), _json(reason), _json(by), bid_id, *(count or ("",))]
        answer = await self._void.run(self._redis, item_keys(item_id), arguments)
        match int(answer[0]):
            case 5 | 6:
                return None
            case 7:
                raise BidNotFound(item_id, bid_id, cause=cause_of(bid_id))
            case 8:
                raise BidStruck(item_id, bid_id)
            case 9:
                raise LeadLacksCredit(item_id, answer[1].decode(), answer[2].decode(), int(answer[3]))
        return _entry_of(answer, item_id, "void")

    async def due(self, shards: Sequence[str], *, count: int) -> dict[str, list[str] | ResponseError]:
        """Items whose next transition has come by Redis TIME, at most ``count`` per shard; or what is wrong with that
        shard alone.

        Raises:
            RedisError, OSError, TimeoutError: Redis cannot be asked.
        """
        told = await DUE.run_for_few(self._redis, _of_deadlines(tuple(shards)), [count])
        found: dict[str, list[str] | ResponseError] = {}
        for at, answer in told.items():
            is_error = isinstance(answer, Exception)
            # What is no text is no item's id. It is told of as an item that is due and cannot be found.
            found[shards[at]] = (
                _of_this_call(answer) if is_error else [item_id.decode(errors="backslashreplace") for item_id in answer]
            )
        return found

    async def advance(self, item_ids: Sequence[str]) -> list[int | BiddingError | ResponseError]:
        """Open or close the items whose time has come; atomic for each, and harmless if it has not.

        One round trip, so that Redis forces all of them onto its disk at once. Returns for each the outbox entry, 0
        where nothing was due, or ItemNotFound, ShardLost or OutboxFull: then nothing was changed; or the error of that
        item's script.

        Raises:
            RedisError, OSError, TimeoutError: Redis cannot be asked.
        """
        calls = [(item_keys(item_id), self._head(item_id)) for item_id in item_ids]
        results: list[int | BiddingError | ResponseError] = []
        for item_id, answer in zip(item_ids, await self._advance.run_each(self._redis, calls), strict=True):
            if isinstance(answer, Exception):
                results.append(_of_this_call(answer))
                continue
            try:
                results.append(_entry_of(answer, item_id, "advance"))
            except BiddingError as error:
                results.append(error)
        return results

    def _head(self, item_id: str) -> list[str]:
        """``ARGV[1..3]`` of every script that begins with ``lib/item.lua``."""
        return [item_id, str(self._limits.outbox_entries_max), str(self._limits.recent_events)]


@dataclass(frozen=True, slots=True)
class OpenResult:
    """``created``, or ``exists`` already, or ``fenced``: ask again whether the id is new. Or none of these: the end was
    not in the future. Of a created item: its outbox entry, its epoch, and its instants in microseconds."""

    created: bool
    exists: bool
    entry: int
    fenced: bool = False
    epoch: int = 0
    created_us: int = 0
    start_us: int = 0
    end_us: int | None = None


class Traces(NamedTuple):
    """``fence``: of the item's shard, None where that is lost or closed. ``is_there``: the item is in Redis.
    ``is_opened``: the event that opened it waits to be archived."""

    fence: str | None
    is_there: bool
    is_opened: bool


def _opened(answer: Any) -> OpenResult:
    """Raises ShardLost, OutboxFull: nothing was created."""
    status = int(answer[0])
    if status in (SHARD_LOST, OUTBOX_FULL):
        raise refused_by_script(status)
    if status != OK:
        return OpenResult(created=False, exists=status == NO_ITEM, entry=0, fenced=status == FENCED)
    _, entry, epoch, created_us, start_us, end_us = answer
    return OpenResult(
        created=True,
        exists=False,
        entry=int(entry),
        epoch=int(epoch),
        created_us=int(created_us),
        start_us=int(start_us),
        end_us=int(end_us) if end_us else None,
    )
