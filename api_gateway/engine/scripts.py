"""The Lua scripts: one Python method per script, and the one connection on which bids are decided.

No method is retried by the library or here, with one exception: a NOSCRIPT answer says that the script did not run, so
the call is repeated with its text loaded.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha1
from pathlib import Path
from typing import Any, Final, Literal, cast

import msgspec
from hiredis import pack_command
from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import (
    ClusterDownError,
    MasterDownError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
    TryAgainError,
)

from api_gateway.engine.bids.batcher import PendingBid
from api_gateway.engine.loss.guard import NotAdmitted
from api_gateway.engine.relay.lineage import Lineage
from shared import names
from shared.domain.errors import (
    BiddingError,
    BidNotFound,
    BidStruck,
    ItemNotFound,
    OutboxFull,
    OutcomeUnknown,
    ShardLost,
    StateConflict,
    Unavailable,
)
from shared.domain.voiding import cause_of

_LUA: Final = Path(__file__).parent / "lua"
_INCLUDE: Final = re.compile(r"^---@include (\w+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Script:
    """A script's text and the digest by which Redis knows it."""

    text: str
    sha: str

    @classmethod
    def read(cls, name: str, *, library: str | Sequence[str] = ()) -> Script:
        """The script of ``lua/<name>.lua``, after the texts of ``lua/lib/<library>.lua`` for each that it names.

        A line ``---@include <library>`` in a script is replaced by the text of that library.
        """
        libraries = [library] if isinstance(library, str) else library
        text = _INCLUDE.sub(lambda found: _library(found[1]), (_LUA / f"{name}.lua").read_text())
        text = "\n".join([*map(_library, libraries), text])
        return cls(text, sha1(text.encode(), usedforsecurity=False).hexdigest())


def _library(name: str) -> str:
    return (_LUA / "lib" / f"{name}.lua").read_text()


@dataclass(frozen=True, slots=True)
class Decided:
    """The script's answer for one item.

    Attributes:
        verdicts: one per bid, in order.
        entry: the outbox entry that was written, 0 where nothing changed.
        last_entry: the shard's newest entry; when it is published, so is the event of every verdict.
        lineage: of whose outbox these entries are.
    """

    verdicts: Sequence[bytes]
    entry: int
    last_entry: int
    lineage: Lineage


class ItemMissing(Exception):
    """The item has no hash: it was never opened, or it was known to this gateway and is gone."""


_READ_ONLY: Final = "can't write against a read only replica"
_OUT_OF_MEMORY: Final = "command not allowed when used memory"

_OK, _NO_ITEM, _SHARD_LOST, _OUTBOX_FULL, _CONFLICT = range(5)

Transition = Literal["pause", "resume", "cancel"]


@dataclass(frozen=True, slots=True)
class ScriptLimits:
    """Bounds that the scripts apply.

    Attributes:
        outbox_entries_max: entries of a shard that may wait to be archived; past it bids are refused with 503.
        recent_events: events per item kept next to its state.
        refusals_kept: verdicts of refused bids kept per item at most, in two halves; at least the latest half is there.
        refusals_kept_of_one: how many of these may be of one bidder, in two halves as well.
        refusals_kept_s: how long they are kept after the last one.
    """

    outbox_entries_max: int = 50_000
    recent_events: int = 512
    refusals_kept: int = 512
    refusals_kept_of_one: int = 32
    refusals_kept_s: int = 1_800


@lru_cache(maxsize=8_192)
def item_keys(item_id: str) -> tuple[str, ...]:
    """``KEYS[1..11]`` of every script that begins with ``lib/item.lua``."""
    shard = names.shard_of(item_id)
    return (
        names.item_key(item_id),
        names.proxies_key(item_id),
        names.recent_key(item_id),
        names.outbox_key(shard),
        names.cursors_key(shard),
        names.deadlines_key(shard),
        names.bidders_key(item_id),
        names.accepted_key(item_id),
        names.verdicts_key(item_id),
        names.refusals_key(item_id),
        names.older_refusals_key(item_id),
    )


class BidScripts:
    """``place_bids.lua`` on a connection of its own: one pipelined round trip per flush."""

    _place: Final = Script.read("place_bids", library=("item", "bidding"))

    def __init__(
        self,
        redis: Redis,
        limits: ScriptLimits,
        *,
        timeout_s: float,
        run_of: Callable[[AbstractConnection], str] = lambda _: "",
    ) -> None:
        """``run_of`` tells which run of Redis a connection has reached (``Guard.run_of``)."""
        self._run_of = run_of
        self._pool = redis.connection_pool
        self._limits = limits
        self._timeout_s = timeout_s
        self._connection: AbstractConnection | None = None
        self._tail = (
            str(limits.outbox_entries_max),
            str(limits.recent_events),
            str(limits.refusals_kept),
            str(limits.refusals_kept_of_one),
            str(limits.refusals_kept_s),
        )

    async def place(self, calls: Sequence[Sequence[PendingBid]]) -> list[Decided | Exception]:
        """Decide the bids of several items; atomic per item.

        Returns one result per call: :class:`Decided`, or the error for all of its bids. An :class:`Unavailable` error
        says that nothing was changed.

        Raises:
            Unavailable: Redis could not be reached; no bid was decided.
            OutcomeUnknown: the connection broke after the calls were sent; each call ran once or not at all.
        """
        connection = await self._connected()
        commands = [self._command("EVALSHA", self._place.sha, call) for call in calls]
        results = await self._decide(connection, commands)
        missing = [index for index, result in enumerate(results) if isinstance(result, NoScriptError)]
        if missing:
            # EVAL runs the text and loads it, so the next flush is back to the digest.
            again = [self._command("EVAL", self._place.text, calls[index]) for index in missing]
            for index, result in zip(missing, await self._decide(connection, again), strict=True):
                results[index] = result
        return results

    async def _decide(
        self, connection: AbstractConnection, commands: Sequence[tuple[str, ...]]
    ) -> list[Decided | Exception]:
        if not connection.is_connected:
            raise OutcomeUnknown  # dropped meanwhile; sending would connect it again, to whatever is there now
        answers = await self._exchange(connection, commands)
        # Of the connection as it is now: answers come by the one on which the commands were sent, or not at all.
        run = self._run_of(connection)
        if any(isinstance(answer, ResponseError) and _READ_ONLY in str(answer) for answer in answers):
            # What was the primary is a replica now. When it becomes the primary again, it must be admitted again.
            await self._drop()
        return [_decided(answer, run) for answer in answers]

    def _command(self, verb: str, script: str, call: Sequence[PendingBid]) -> tuple[str, ...]:
        item_id = call[0].item_id
        keys = item_keys(item_id)
        arguments = [item_id, *self._tail]
        for bid in call:
            has_key = bid.key is not None
            arguments += (
                bid.user_id,
                "" if bid.amount is None else str(bid.amount),
                "" if bid.maximum is None else str(bid.maximum),
                bid.bid_id,
                "1" if has_key else "0",
                bid.fingerprint if has_key else "",
                "" if bid.key is None or bid.key_is_bid_id else bid.key,
            )
        return (verb, script, str(len(keys)), *keys, *arguments)

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
                raise Unavailable(f"Redis is not reachable: {error}") from error
            if self._connection is not connection:
                await connection.disconnect(nowait=True)
                raise Unavailable("Redis was left while it was being reached; try again", retry_after_s=1)
        return connection

    async def _exchange(self, connection: AbstractConnection, commands: Sequence[tuple[str, ...]]) -> list[Any]:
        """Send the commands in one write and read their answers; errors of single commands are among the answers."""
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
        """Drop the connection, if it was admitted: one that is being made is asked about anyway."""
        if self._connection is not None and self._run_of(self._connection):
            await self._drop()

    async def close(self) -> None:
        """Close the connection; the next flush makes another. The pool stays with its owner."""
        await self._drop()


def _is_hung_up(connection: AbstractConnection) -> bool:
    """Whether the other end is known to have closed the connection; the library only notices when it reads."""
    reader = connection._reader
    return reader is not None and (reader.at_eof() or reader.exception() is not None)


def _decided(answer: Any, run: str) -> Decided | Exception:
    if isinstance(answer, NoScriptError):
        return answer
    if isinstance(answer, ResponseError):
        return _translated(answer)
    status = answer[0]
    if status == _OK:
        return Decided(answer[4:], answer[1], answer[2], Lineage(run, answer[3]))
    if status == _NO_ITEM:
        return ItemMissing()
    return _refused_by_script(status)


def _refused_by_script(status: int) -> Unavailable:
    if status == _SHARD_LOST:
        return ShardLost("this item is being rebuilt after a loss of Redis; try again later", retry_after_s=5)
    return OutboxFull("the archive cannot keep up, bids are not taken for now", retry_after_s=5)


def _entry_of(answer: Any, item_id: str, operation: str) -> int:
    status = int(answer[0])
    if status == _OK:
        return int(answer[1])
    if status == _NO_ITEM:
        raise ItemNotFound(item_id)
    if status == _CONFLICT:
        raise StateConflict(item_id, answer[1].decode(), operation)
    raise _refused_by_script(status)


def _json(text: str) -> str:
    return msgspec.json.encode(text).decode()


def _translated(error: ResponseError) -> Exception:
    """What an error answer says about the bids: refused before the script ran, or unknown."""
    # All of these are checked before a script's first write takes effect. The client takes the first word off an error
    # that it has a class for; inside a script, Redis 6.2 hides that word.
    text = str(error)
    refusals = ("MISCONF", "LOADING", "BUSY", "NOREPLICAS", "CLUSTERDOWN", "TRYAGAIN", "MASTERDOWN")
    classes = (OutOfMemoryError, ReadOnlyError, MasterDownError, ClusterDownError, TryAgainError)
    if isinstance(error, classes) or text.startswith(refusals) or _OUT_OF_MEMORY in text or _READ_ONLY in text:
        return Unavailable(f"Redis cannot take bids: {text}", retry_after_s=2)
    return OutcomeUnknown()


Hold = Literal["keep", "leave", "take"]
"""How a lease is asked for: see ``lease.lua``."""


class ItemScripts:
    """The scripts that are not on the hot path; they use the pool like any other command."""

    _open: Final = Script.read("open_item")
    _init_shard: Final = Script.read("init_shard")
    _admit_shard: Final = Script.read("admit_shard")
    _close_shard: Final = Script.read("close_shard")
    _stop_shard: Final = Script.read("stop_shard")
    _lease: Final = Script.read("lease")
    _release: Final = Script.read("release")
    _advance: Final = Script.read("advance_published")
    _rewind: Final = Script.read("rewind_published")
    _due: Final = Script.read("due")
    _advance_item: Final = Script.read("advance", library="item")
    _void: Final = Script.read("void", library=("item", "bidding"))
    _transitions: Final[dict[Transition, Script]] = {
        "pause": Script.read("pause", library="item"),
        "resume": Script.read("resume", library="item"),
        "cancel": Script.read("cancel", library="item"),
    }

    def __init__(self, redis: Redis, limits: ScriptLimits) -> None:
        self._redis = redis
        self._limits = limits

    async def _run(self, script: Script, keys: Sequence[str], arguments: Sequence[str]) -> Any:
        try:
            return await cast(Any, self._redis.evalsha(script.sha, len(keys), *keys, *arguments))
        except NoScriptError:
            return await cast(Any, self._redis.eval(script.text, len(keys), *keys, *arguments))

    async def _run_many(self, script: Script, calls: Sequence[tuple[Sequence[str], Sequence[str]]]) -> list[bool]:
        """One round trip for the same script on several shards; each call is atomic, all of them together are not."""
        pipeline = self._redis.pipeline(transaction=False)
        for keys, arguments in calls:
            pipeline.evalsha(script.sha, len(keys), *keys, *arguments)
        answers = await pipeline.execute(raise_on_error=False)
        for index, answer in enumerate(answers):
            if isinstance(answer, NoScriptError):
                answers[index] = await self._run(script, *calls[index])
            elif isinstance(answer, Exception):
                raise answer
        return [bool(answer) for answer in answers]

    async def open_item(
        self,
        item_id: str,
        *,
        start_us: int | None,
        end_us: int | None,
        length_us: int | None,
        event_members: str,
        fields: dict[str, str],
    ) -> OpenResult:
        """Create an item; atomic. ``event_members`` are the JSON members of the `created` event.

        Raises:
            ShardLost, OutboxFull: nothing was created.
            RedisError, OSError: unknown whether it was created; the id makes a second try safe.
        """
        shard = names.shard_of(item_id)
        keys = [
            names.item_key(item_id),
            names.recent_key(item_id),
            names.outbox_key(shard),
            names.cursors_key(shard),
            names.deadlines_key(shard),
        ]
        flat = [text for pair in fields.items() for text in pair]
        head = [
            item_id,
            str(self._limits.outbox_entries_max),
            "" if start_us is None else str(start_us),
            "" if end_us is None else str(end_us),
            "" if length_us is None else str(length_us),
            event_members,
        ]
        answer = await self._run(self._open, keys, [*head, *flat])
        status = int(answer[0])
        if status in (_SHARD_LOST, _OUTBOX_FULL):
            raise _refused_by_script(status)
        return OpenResult(
            created=status == _OK, exists=status == _NO_ITEM, entry=int(answer[1]) if status == _OK else 0
        )

    async def transition(self, name: Transition, item_id: str, *, reason: str, by: str) -> int:
        """Pause, resume or cancel an item; atomic. Returns the outbox entry.

        Raises:
            ItemNotFound, StateConflict, ShardLost, OutboxFull: nothing was changed.
            RedisError, OSError: unknown whether it was done; the item's status tells.
        """
        arguments = [*self._head(item_id), _json(reason), _json(by)]
        answer = await self._run(self._transitions[name], item_keys(item_id), arguments)
        return _entry_of(answer, item_id, name)

    async def void(self, item_id: str, bid_id: str, *, count: Sequence[str], reason: str, by: str) -> int | None:
        """Strike an accepted bid; atomic.

        ``count``: :meth:`api_gateway.engine.bids.counting.Count.arguments`, or nothing.

        Returns the outbox entry; None where nothing was done and the item's bids have to be counted (again).

        Raises:
            BidNotFound, BidStruck, and as :meth:`transition`.
        """
        arguments = [*self._head(item_id), _json(reason), _json(by), bid_id, *(count or ("",))]
        answer = await self._run(self._void, item_keys(item_id), arguments)
        match int(answer[0]):
            case 5 | 6:
                return None
            case 7:
                raise BidNotFound(item_id, bid_id, cause=cause_of(bid_id))
            case 8:
                raise BidStruck(item_id, bid_id)
        return _entry_of(answer, item_id, "void")

    async def due(self, shards: Sequence[str], *, count: int) -> dict[str, list[str]]:
        """Items whose next transition has come by Redis TIME, at most ``count`` per shard."""
        pipeline = self._redis.pipeline(transaction=False)
        for shard in shards:
            pipeline.evalsha(self._due.sha, 1, names.deadlines_key(shard), str(count))
        answers = await pipeline.execute(raise_on_error=False)
        found: dict[str, list[str]] = {}
        for shard, answer in zip(shards, answers, strict=True):
            if isinstance(answer, NoScriptError):
                answer = await self._run(self._due, [names.deadlines_key(shard)], [str(count)])
            elif isinstance(answer, Exception):
                raise answer
            if answer:
                found[shard] = [item_id.decode() for item_id in answer]
        return found

    async def advance(self, item_ids: Sequence[str]) -> list[int | BiddingError]:
        """Open or close the items whose time has come; atomic for each, and harmless if it has not.

        One round trip, so that Redis forces all of them onto its disk at once. Returns for each the outbox entry, 0
        where nothing was due, or ItemNotFound, ShardLost or OutboxFull: then nothing was changed.
        """
        pipeline = self._redis.pipeline(transaction=False)
        for item_id in item_ids:
            keys = item_keys(item_id)
            pipeline.evalsha(self._advance_item.sha, len(keys), *keys, *self._head(item_id))
        results: list[int | BiddingError] = []
        for item_id, answer in zip(item_ids, await pipeline.execute(raise_on_error=False), strict=True):
            if isinstance(answer, NoScriptError):
                answer = await self._run(self._advance_item, item_keys(item_id), self._head(item_id))
            elif isinstance(answer, Exception):
                raise answer
            try:
                results.append(_entry_of(answer, item_id, "advance"))
            except BiddingError as error:
                results.append(error)
        return results

    def _head(self, item_id: str) -> list[str]:
        """``ARGV[1..3]`` of every script that begins with ``lib/item.lua``."""
        return [item_id, str(self._limits.outbox_entries_max), str(self._limits.recent_events)]

    async def init_shard(self, shard: str, *, run: str = "") -> bool:
        """Give a shard of an empty Redis its cursors; False where it has them already. ``run``: that of Redis."""
        return bool(await self._run(self._init_shard, [names.cursors_key(shard)], ["1", run]))

    async def admit_shards(self, places: Mapping[str, tuple[int, int]], *, run: str) -> None:
        """Write down that this run of Redis has given out these entries, (epoch, n) of each shard, where it has."""
        await self._run_many(
            self._admit_shard,
            [([names.cursors_key(shard)], [run, str(epoch), str(n)]) for shard, (epoch, n) in places.items()],
        )

    async def close_shard(self, shard: str, *, epoch: int, n: int) -> bool:
        """Close a shard that has not given out this entry, though it is known elsewhere; False where it has."""
        return bool(await self._run(self._close_shard, [names.cursors_key(shard)], [str(epoch), str(n)]))

    async def stop_shard(self, shard: str, lineage: Lineage, *, token: str) -> bool:
        """Close a shard whose entries cannot be published; False where lease, epoch or run is no longer ours."""
        keys = [names.lease_key(shard), names.cursors_key(shard)]
        return bool(await self._run(self._stop_shard, keys, [token, str(lineage.epoch), lineage.run]))

    async def lease(self, shards: Sequence[str], token: str, ttl_ms: int, *, hold: Hold = "keep") -> list[bool]:
        """Take or renew the relay's leases, in one round trip; False for a shard that somebody else holds."""
        calls = [([names.lease_key(shard), names.cursors_key(shard)], [token, str(ttl_ms), hold]) for shard in shards]
        return await self._run_many(self._lease, calls)

    async def release(self, shards: Sequence[str], token: str) -> None:
        """Give leases back where they are still ours."""
        await self._run_many(self._release, [([names.lease_key(shard)], [token]) for shard in shards])

    async def advance_published(self, advances: Sequence[Advance], *, token: str, stream_id: str) -> list[bool]:
        """Move `published` cursors up; False where the lease, the epoch or the run is no longer ours, or the cursor is
        before what was read."""
        return await self._run_many(
            self._advance,
            [
                (
                    [names.lease_key(advance.shard), names.cursors_key(advance.shard)],
                    [
                        token,
                        str(advance.lineage.epoch),
                        str(advance.entry),
                        stream_id,
                        str(advance.stream_seq),
                        advance.lineage.run,
                        str(advance.after),
                    ],
                )
                for advance in advances
            ],
        )

    async def rewind_published(self, shard: str, *, token: str, stream_id: str) -> bool:
        """Move the `published` cursor back to `archived`, because JetStream lost messages; False without the lease."""
        keys = [names.lease_key(shard), names.cursors_key(shard)]
        return bool(await self._run(self._rewind, keys, [token, stream_id]))


@dataclass(frozen=True, slots=True)
class Advance:
    """A shard's new `published` cursor: ``entry`` and all from ``after`` to it have a PubAck, the last with
    ``stream_seq``."""

    shard: str
    lineage: Lineage
    entry: int
    stream_seq: int
    after: int = 0


@dataclass(frozen=True, slots=True)
class OpenResult:
    """``created``, or ``exists`` already, or neither: the end was not in the future."""

    created: bool
    exists: bool
    entry: int
