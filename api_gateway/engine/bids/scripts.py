"""``place_bids.lua``, and the one connection on which bids are decided."""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import Any, Final, NamedTuple, TypeAlias, cast

import msgspec
from hiredis import pack_command
from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import (
    AskError,
    NoScriptError,
    RedisError,
    ResponseError,
)

from api_gateway.engine.bids.batcher import BIDS_PER_CALL_MAX, PendingBid
from api_gateway.engine.bids.errors import ItemMissing
from api_gateway.engine.item_scripts import (
    LUA,
    NO_ITEM,
    OK,
    READ_ONLY,
    ScriptLimits,
    is_refused_by_redis,
    item_keys,
    refused_by_script,
)
from api_gateway.engine.loss.guard import NotAdmitted
from shared import names
from shared.clients.redis import told_of
from shared.domain.errors import OutcomeUnknown, Unavailable
from shared.redis_layout.cursors import Lineage
from shared.redis_layout.scripts import CALLS_TOGETHER_MAX, Script

ItemBids: TypeAlias = Sequence[PendingBid]
"""The bids of one item, in their order."""


class BidArguments(NamedTuple):
    """What ``place_bids.lua`` is told of one bid, in the order in which it reads them: its header says what each is."""

    user: str
    amount: str
    maximum: str
    bid_id: str
    has_key: str
    fingerprint: str
    header_key: str


class LimitArguments(NamedTuple):
    """The bounds that ``place_bids.lua`` is told first: ``ARGV[1..5]``."""

    outbox_entries_max: str
    recent_events: str
    refusals_kept: str
    refusals_kept_of_one: str
    refusals_kept_s: str


class Decided(msgspec.Struct, frozen=True, gc=False):
    """The script's answer for one item.

    Attributes:
        verdicts: one per bid, in order.
        entry: the outbox entry that was written, 0 where nothing changed.
        last_entry: the shard's newest entry; when it is published, so is the event of every verdict.
        lineage: of the outbox that has these entries.
    """

    verdicts: Sequence[bytes]
    entry: int
    last_entry: int
    lineage: Lineage


class BidScripts:
    """``place_bids.lua`` on a connection of its own: one round trip per flush, one command per 64 items.

    Attributes:
        calls_per_item: how many calls of one item may be among those of a flush. The bids of other items wait for all
            of them.
    """

    calls_per_item: Final = 4

    _place: Final = Script.read(LUA / "place_bids.lua", libraries=("item", "bidding"))

    def __init__(
        self,
        redis: Redis,
        limits: ScriptLimits,
        *,
        timeout_s: float,
        run_of: Callable[[AbstractConnection], str] = lambda _: "",
        in_parts: Callable[[Sequence[ItemBids]], Iterator[Sequence[ItemBids]]] | None = None,
    ) -> None:
        """
        Args:
            run_of: tells which run of Redis a connection has reached (``Guard.run_of``).
            in_parts: says which items, in their order, are one command.
        """
        self._run_of = run_of
        self._in_parts = in_parts or _in_parts
        self._pool = redis.connection_pool
        self._timeout_s = timeout_s
        self._connection: AbstractConnection | None = None
        self._limits = LimitArguments(
            outbox_entries_max=str(limits.outbox_entries_max),
            recent_events=str(limits.recent_events),
            refusals_kept=str(limits.refusals_kept),
            refusals_kept_of_one=str(limits.refusals_kept_of_one),
            refusals_kept_s=str(limits.refusals_kept_s),
        )

    async def place(self, calls: Sequence[Sequence[PendingBid]]) -> list[Decided | Exception]:
        """Decide the bids of several items; atomic per call. Calls of one item are carried out in their order.

        Returns one result per call: :class:`Decided`, or the error for all of its bids. An :class:`Unavailable` error
        says that nothing was changed. So does an AskError, of a node of a cluster: another one has the item's shard.

        Raises:
            Unavailable: Redis could not be reached; no bid was decided.
            OutcomeUnknown: the connection broke after the calls were sent; each call ran once or not at all.
        """
        connection = await self._connected()
        parts = list(self._in_parts(calls))
        # By its digest one of these might find no script, and the one behind it another gateway's: then the bids of the
        # first would come after those of the second.
        again_in_flush = _in_several_calls(calls)
        answers = await self._exchange(
            connection, [self._command(part, by_text=not again_in_flush.isdisjoint(_items(part))) for part in parts]
        )
        missing = [index for index, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
        if missing:
            # EVAL runs the text and loads it, so the next flush is back to the digest.
            again = [self._command(parts[index], by_text=True) for index in missing]
            for index, answer in zip(missing, await self._exchange(connection, again), strict=True):
                answers[index] = answer
        # The run of this very connection: answers come on the connection that sent the commands, or not at all.
        run = self._run_of(connection)
        each: list[Any] = []
        for part, answer in zip(parts, answers, strict=True):
            if isinstance(answer, Exception):
                each += [answer] * len(part)
            else:
                each += answer
        if any(isinstance(answer, ResponseError) and READ_ONLY in str(answer) for answer in each):
            # The former primary is a replica now. When it becomes the primary again, it must be admitted again.
            await self._drop()
        return [_decided(answer, run) for answer in each]

    def _command(self, part: Sequence[Sequence[PendingBid]], *, by_text: bool = False) -> tuple[Any, ...]:
        keys: list[str] = []
        arguments: list[str | int] = [*self._limits]
        for call in part:
            item_id = call[0].item_id
            keys += item_keys(item_id)
            arguments += (item_id, len(call))
            for bid in call:
                has_key = bid.key is not None
                # As BidArguments has them; to make one of them would double what this costs, and it is paid per bid.
                arguments += (
                    bid.user_id,
                    "" if bid.amount is None else bid.amount,
                    "" if bid.maximum is None else bid.maximum,
                    bid.bid_id,
                    "1" if has_key else "0",
                    bid.fingerprint if has_key else "",
                    "" if bid.key is None or bid.key_is_bid_id else bid.key,
                )
        verb, text = ("EVAL", self._place.text) if by_text else ("EVALSHA", self._place.sha)
        return (verb, text, len(keys), *keys, *arguments)

    @property
    def is_connected(self) -> bool:
        """Whether there is a connection that is not known to be broken."""
        connection = self._connection
        return connection is not None and connection.is_connected and not _is_hung_up(connection)

    async def connect(self) -> None:
        """Make the connection, if there is none.

        Raises:
            Unavailable: Redis could not be reached.
        """
        await self._connected()

    async def _connected(self) -> AbstractConnection:
        """The connection of the bids; everything that fails in here happened before any bid was sent."""
        if self._connection is not None and _is_hung_up(self._connection):
            # Redis was restarted since the last flush. Seen now, this costs a connection; after sending, the outcome of
            # every bid of the flush would be unknown.
            await self._drop()
        if self._connection is None:
            self._connection = self._pool.make_connection()  # type: ignore[no-untyped-call]
        connection = self._connection
        if not connection.is_connected:
            try:
                async with asyncio.timeout(self._timeout_s):
                    await connection.connect()
            except (RedisError, OSError, TimeoutError) as error:
                await self._drop()
                if isinstance(error, NotAdmitted):
                    raise Unavailable(str(error), retry_after_s=2) from error
                raise Unavailable(f"Redis is not reachable: {told_of(error)}") from error
            if self._connection is not connection:
                await connection.disconnect(nowait=True)
                raise Unavailable("the new connection to Redis was dropped; try again", retry_after_s=1)
        return connection

    async def _exchange(self, connection: AbstractConnection, commands: Sequence[tuple[str, ...]]) -> list[Any]:
        """Send the commands in one write and read their answers; errors of single commands are among the answers."""
        if not connection.is_connected:
            raise OutcomeUnknown  # dropped meanwhile; sending would connect it again, to whatever is there now
        answers: list[Any] = []
        try:
            async with asyncio.timeout(self._timeout_s):
                # hiredis packs in C; the client's own packing would cost more than the rest of this method.
                packed = b"".join([pack_command(cast(Any, command)) for command in commands])
                await connection.send_packed_command(packed, check_health=False)
                for _ in commands:
                    try:
                        # The time-out around the loop holds for all answers; one per answer would be paid per item.
                        answers.append(await connection.read_response(disable_decoding=True, timeout=math.inf))
                    except ResponseError as error:
                        answers.append(error)
        except (RedisError, OSError, TimeoutError, asyncio.CancelledError) as error:
            # Answers of this exchange may still be on their way: the connection must not serve another call.
            await self._drop()
            if isinstance(error, asyncio.CancelledError):
                raise
            raise OutcomeUnknown from error
        return answers

    async def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.disconnect(nowait=True)

    async def leave(self) -> None:
        """Drop the connection, if it was admitted: one that is still being made is checked anyway."""
        if self._connection is not None and self._run_of(self._connection):
            await self._drop()

    async def close(self) -> None:
        """Close the connection; the next flush makes another. The pool stays with its owner."""
        await self._drop()


def _in_parts(calls: Sequence[ItemBids]) -> Iterator[Sequence[ItemBids]]:
    """What is one command to Redis: many items with a bid or two, or few with many."""
    part: list[ItemBids] = []
    bids = 0
    for call in calls:
        if part and (len(part) == CALLS_TOGETHER_MAX or bids + len(call) > BIDS_PER_CALL_MAX):
            yield part
            part, bids = [], 0
        part.append(call)
        bids += len(call)
    if part:
        yield part


def in_parts_of_one_shard(calls: Sequence[ItemBids]) -> Iterator[Sequence[ItemBids]]:
    """The same on a cluster, where all keys of a command must be in one slot. Items of a shard must be beside each
    other."""
    for _, of_shard in groupby(calls, key=lambda call: names.shard_of(call[0].item_id)):
        yield from _in_parts(list(of_shard))


def _items(calls: Sequence[ItemBids]) -> Iterator[str]:
    return (call[0].item_id for call in calls)


def _in_several_calls(calls: Sequence[ItemBids]) -> frozenset[str]:
    """The items of which there is more than one call: all but the last of these are as large as calls may be."""
    if all(len(call) < BIDS_PER_CALL_MAX for call in calls):
        return frozenset()
    return frozenset(item_id for item_id, number in Counter(_items(calls)).items() if number > 1)


def _is_hung_up(connection: AbstractConnection) -> bool:
    """Whether the other end is known to have closed the connection; the library only notices when it reads."""
    reader = connection._reader
    return reader is not None and (reader.at_eof() or reader.exception() is not None)


def _decided(answer: Any, run: str) -> Decided | Exception:
    if isinstance(answer, NoScriptError | AskError):
        return answer
    if isinstance(answer, ResponseError):
        return _translated(answer)
    status = answer[0]
    if status == OK:
        return Decided(answer[4:], answer[1], answer[2], Lineage(run, answer[3]))
    if status == NO_ITEM:
        return ItemMissing()
    return refused_by_script(status)


def _translated(error: ResponseError) -> Exception:
    """What an error answer says about the bids: refused before the script ran, or unknown."""
    if is_refused_by_redis(error):
        return Unavailable(f"Redis cannot take bids: {error}", retry_after_s=2)
    return OutcomeUnknown()
