"""Claims: a run of `recover` writes only to shards that it has claimed. A later run may take them over; this one stops.

The advisory lock keeps two runs apart only while its connection lives. If that breaks, say because PostgreSQL was
restarted, the first run does not notice by itself, and a second one may begin beside it:

1. Run 1 is about to open shard A, and is suspended. PostgreSQL restarts: its lock is gone.
2. Run 2 rebuilds A and opens it. Bids go on.
3. Run 1 goes on and writes, or opens A once more, with the state of step 1.

So every run has a number, higher than that of every run before it. In Redis a shard carries the number of the run that
has claimed it, and each write checks it in the same step (``lua/write_claimed.lua``); an earlier run never takes over a
claim. In PostgreSQL epochs are given out only over the connection that holds the lock, so a run whose lock is gone
gives out none. The claim comes before the epoch: a recorded epoch keeps all former ones out of the archive, and must
not be recorded for a shard that another run has opened meanwhile.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping, Sequence
from enum import IntEnum
from pathlib import Path
from typing import Any, Final

from redis.asyncio import Redis

from archival_worker.errors import RecoveryOvertaken, ShardChanged
from archival_worker.store.acts import Actor, record
from archival_worker.store.archive import Archive
from archival_worker.store.database import Connection
from archival_worker.store.queries import Queries
from shared import names
from shared.redis_layout.keys import (
    credit_key,
    cursors_key,
    lost_key,
    opened_key,
    outbox_key,
    rebuilding_key,
    rulings_key,
)
from shared.redis_layout.scripts import Argument, Script

_LUA: Final = Path(__file__).parent / "lua"
_CLAIM: Final = Script.read(_LUA / "claim_shard.lua")
_WRITE: Final = Script.read(_LUA / "write_claimed.lua")
_WRITE_VERDICTS: Final = Script.read(_LUA / "write_verdicts.lua")
_RESTORE: Final = Script.read(_LUA / "restore_shard.lua")

_OTHERS: Final = 2
_CHANGED: Final = 3

_ARGUMENTS_PER_COMMAND: Final = 1_000
"""Lua can unpack only some thousands of values at once. Even, so that a field of a hash stays with its value."""
_ARGUMENTS_PER_CALL: Final = 4_000
"""A script blocks all other clients while it runs: with so many, a millisecond or two."""

_NUMBER: Final = re.compile(rb"\d+")


class Claim(IntEnum):
    """What became of a claim.

    ``TAKEN_OVER``: an earlier run had the shard. It may have written items that this run leaves out, say because their
    time in Redis has come since: what it wrote must be removed.
    """

    IS_OPEN = 0
    CLAIMED = 1
    TAKEN_OVER = 4


class ClaimedWrites:
    """Writes to one shard, collected and then sent at once. Each is carried out only if the run still has the shard.

    All writes of a run go through one of these. The methods have the names of the commands, and redis-py's arguments.
    """

    def __init__(self, redis: Redis, shard: str, mark: str) -> None:
        self._redis: Any = redis
        self._shard = shard
        self._mark = mark
        self._calls: list[tuple[Script, list[str | bytes], list[Argument]]] = []

    def call(self, command: str, key: str | bytes, *arguments: Argument) -> None:
        """Any command on a single key of the shard, with at most 1,000 arguments after the key."""
        assert len(arguments) <= _ARGUMENTS_PER_COMMAND
        self._add(_WRITE, key, command, len(arguments), *arguments)

    def put(self, key: str, fields: Sequence[str], verdict: bytes) -> None:
        """Put a verdict into the first free one of these fields of a hash."""
        self._add(_WRITE_VERDICTS, key, len(fields), *fields, verdict)

    def _add(self, script: Script, key: str | bytes, *values: Argument) -> None:
        last = self._calls[-1] if self._calls else None
        if last is None or last[0] is not script or len(last[2]) + len(values) > _ARGUMENTS_PER_CALL:
            last = (script, [rebuilding_key(self._shard)], [self._mark])
            self._calls.append(last)
        last[1].append(key)
        last[2].extend(values)

    def _call_in_pieces(self, command: str, key: str | bytes, arguments: list[Argument]) -> None:
        for at in range(0, len(arguments), _ARGUMENTS_PER_COMMAND):
            self.call(command, key, *arguments[at : at + _ARGUMENTS_PER_COMMAND])

    def delete(self, *keys: str | bytes) -> None:
        """DEL."""
        for key in keys:
            self.call("DEL", key)

    def unlink(self, *keys: str | bytes) -> None:
        """UNLINK."""
        for key in keys:
            self.call("UNLINK", key)

    def hset(self, key: str, *, mapping: Mapping[Any, Any]) -> None:
        """HSET of fields and values."""
        self._call_in_pieces("HSET", key, [part for field in mapping.items() for part in field])

    def rpush(self, key: str, *values: Argument) -> None:
        """RPUSH."""
        self._call_in_pieces("RPUSH", key, list(values))

    def zadd(self, key: str, mapping: Mapping[str, int]) -> None:
        """ZADD of members and scores."""
        self._call_in_pieces("ZADD", key, [part for member, score in mapping.items() for part in (score, member)])

    def expire_at(self, key: str, millisecond: int) -> None:
        """PEXPIREAT."""
        self.call("PEXPIREAT", key, millisecond)

    async def execute(self) -> None:
        """Send what was collected, in order.

        Raises:
            RecoveryOvertaken: another run has the shard; some of it may be done, but nothing after that.
        """
        if not self._calls:
            return
        pipeline = self._redis.pipeline(transaction=False)
        for script, keys, values in self._calls:
            # EVAL, not EVALSHA: the text is short, and a flush of Redis' scripts must not end the run.
            pipeline.eval(script.text, len(keys), *keys, *values)
        self._calls.clear()
        if not all(await pipeline.execute()):
            raise RecoveryOvertaken(self._shard)

    def forget(self) -> None:
        """Drop what was collected."""
        self._calls.clear()


class Run:
    """One run. Its maker holds the advisory lock, on ``connection``."""

    def __init__(self, redis: Redis, archive: Archive, connection: Connection, number: int) -> None:
        self._redis: Any = redis
        self._archive = archive
        self._connection = connection
        self._number = number
        # The token is needed if PostgreSQL was restored to an older state, and gives out a number again.
        self._mark = f"{number}:{secrets.token_hex(8)}"

    @classmethod
    async def begin(cls, redis: Redis, archive: Archive, connection: Connection, queries: Queries) -> Run:
        """A run with a number above all that were given out, and above all that Redis has.

        Raises:
            RedisError, OSError: Redis cannot be asked now.
        """
        number: int = await connection.fetchval(queries.next_run)
        pipeline: Any = redis.pipeline(transaction=False)
        for shard in names.SHARDS:
            pipeline.get(rebuilding_key(shard))
        for mark in await pipeline.execute():
            found = _NUMBER.match(mark or b"")
            # Higher only if PostgreSQL was restored to an older state.
            number = max(number, int(found[0]) + 1 if found else 0)
        return cls(redis, archive, connection, number)

    async def claim(self, shard: str, *, stale: int | None = None) -> Claim:
        """Take the shard, unless it is open.

        Args:
            stale: the epoch in which it was closed when its outbox was archived; None where it was not closed.

        Raises:
            RecoveryOvertaken: a later run has it.
            ShardChanged: it was closed since. What its outbox has now may exist nowhere else.
        """
        keys = [cursors_key(shard), rebuilding_key(shard)]
        closed_in = "" if stale is None else str(stale)
        reply = await _CLAIM.run(self._redis, keys, [self._number, self._mark, closed_in])
        if reply == _OTHERS:
            raise RecoveryOvertaken(shard)
        if reply == _CHANGED:
            raise ShardChanged
        return Claim(reply)

    async def give_epoch(self, shard: str, actor: Actor, *, above: int = 0) -> int:
        """Record a new epoch of a shard that is claimed, and who rebuilds it.

        After that nothing of a former one is archived.

        Args:
            above: the newest epoch of the shard that Redis or the stream knows.

        Raises:
            ArchiveUnavailable: it is not recorded, or that is unknown; the lock may be gone with its connection.
        """
        async with self._archive.safely(self._connection):
            epoch = await self._archive.begin_recovery(self._connection, shard, above=above)
            await record(self._connection, "recover_shard", shard, actor)
            return epoch

    def writes(self, shard: str) -> ClaimedWrites:
        """A pipeline to a shard that is claimed."""
        return ClaimedWrites(self._redis, shard, self._mark)

    async def open(self, shard: str, epoch: int) -> None:
        """Open the shard for bids, in its new epoch: the last step.

        Raises:
            RecoveryOvertaken: another run has taken it over, and may have opened it.
        """
        keys = [
            cursors_key(shard),
            outbox_key(shard),
            rebuilding_key(shard),
            lost_key(shard),
            opened_key(shard),
            rulings_key(shard),
            credit_key(shard),
        ]
        if await _RESTORE.run(self._redis, keys, [epoch, self._mark]) != 1:
            raise RecoveryOvertaken(shard)
