"""The scripts on shards: their leases and their cursors. One method per script."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, NamedTuple
from uuid import uuid4

from redis.asyncio import Redis

from shared.clients.cluster.pipeline import NodeAway
from shared.redis_layout.cursors import Lineage, decode_lineage
from shared.redis_layout.keys import cursors_key, lease_key, outbox_key
from shared.redis_layout.outbox import Entry, decode_script_entries
from shared.redis_layout.scripts import Call, Script, answers_of, parts_of

_LUA: Final = Path(__file__).parent / "lua"

_OUTBOXES_TOGETHER: Final = 16
"""Outboxes in one reply: Redis has it in memory twice until it is sent."""

_ADVANCES_TOGETHER: Final = 64
"""Cursors that one command moves, where nothing is read beside it."""

Hold = Literal["keep", "leave", "take"]
"""How a lease is asked for: see ``lease.lua``."""


@dataclass(frozen=True, slots=True)
class Advance:
    """A shard's new `published` cursor: ``entry`` and all from ``after`` to it have a PubAck, the last with
    ``stream_seq``."""

    shard: str
    lineage: Lineage
    entry: int
    stream_seq: int
    after: int = 0


class UnreadableEntry(Exception):
    """The outbox of a shard has something that is not an entry."""


class Turn(NamedTuple):
    """What a relay's turn at a shard has come to.

    Attributes:
        moved: whether the cursor is where it was to be moved to, or was further; True where it was to stay.
        lineage: whose the entries are; None where the shard is lost or closed, or its node cannot be asked and others
            can.
        entries: those that come next; none where the cursor could not be moved.
    """

    moved: bool
    lineage: Lineage | None
    entries: list[Entry]


class ShardScripts:
    """The scripts on shards, on connections of the pool.

    Each method raises RedisError, OSError or TimeoutError where the result is unknown; repeating the call is harmless.
    """

    _init: Final = Script.read(_LUA / "init_shard.lua")
    _admit: Final = Script.read(_LUA / "admit_shard.lua")
    _close: Final = Script.read(_LUA / "close_shard.lua")
    _stop: Final = Script.read(_LUA / "stop_shard.lua")
    _lease: Final = Script.read(_LUA / "lease.lua")
    _release: Final = Script.read(_LUA / "release.lua")
    _turn: Final = Script.read(_LUA / "turn.lua")
    _news: Final = Script.read(_LUA / "news.lua")
    _find_unpublished: Final = Script.read(_LUA / "find_unpublished.lua")
    _rewind: Final = Script.read(_LUA / "rewind_published.lua")

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def _run_each(self, script: Script, calls: Sequence[Call]) -> list[bool]:
        """False where a node of a cluster cannot be asked and others can."""
        answers = await script.run_each(self._redis, calls)
        _raise_first(answers)
        return [not isinstance(answer, Exception) and bool(answer) for answer in answers]

    async def init_shard(self, shard: str, *, run: str = "") -> bool:
        """Give a shard of an empty Redis its cursors; False where it has them already. ``run``: the run of Redis."""
        return bool(await self._init.run(self._redis, [cursors_key(shard)], ["1", run]))

    async def admit_shards(self, places: Mapping[str, tuple[int, int]], *, run: str) -> None:
        """Write down that this run of Redis has given out these entries, (epoch, n) of each shard, where it has."""
        await self._run_each(
            self._admit,
            [([cursors_key(shard)], [run, str(epoch), str(n), uuid4().hex]) for shard, (epoch, n) in places.items()],
        )

    async def close_shard(self, shard: str, *, epoch: int, n: int) -> bool:
        """Close a shard that has not given out this entry, though it is known elsewhere; False where it has."""
        return bool(await self._close.run(self._redis, [cursors_key(shard)], [str(epoch), str(n)]))

    async def stop_shard(self, shard: str, lineage: Lineage, *, token: str) -> bool:
        """Close a shard whose entries cannot be published; False where lease, epoch or run is no longer ours."""
        keys = [lease_key(shard), cursors_key(shard)]
        return bool(await self._stop.run(self._redis, keys, [token, str(lineage.epoch), lineage.run]))

    async def lease(
        self, shards: Sequence[str], token: str, ttl_ms: int, *, hold: Hold = "keep"
    ) -> list[bool | Exception]:
        """Take or renew the relay's leases, in one round trip; False for a shard that somebody else holds, or whose
        node cannot be asked, and an error for one that fails while others do not."""
        calls: list[Call] = [((lease_key(shard), cursors_key(shard)), ()) for shard in shards]
        told = await self._lease.run_for_few(self._redis, calls, [token, ttl_ms, hold])
        errors = {at: told_of for at, told_of in told.items() if _is_error(told_of)}
        if len(errors) == len(shards):
            _raise_first(errors.values())
        return [errors.get(at, at not in told) for at in range(len(shards))]

    async def release(self, shards: Sequence[str], token: str) -> None:
        """Give leases back where they are still ours."""
        await self._run_each(self._release, [([lease_key(shard)], [token]) for shard in shards])

    async def news(self, known: Mapping[str, tuple[Lineage, int]]) -> set[str]:
        """The shards among these that have other entries than are known, or another lineage, in one round trip; and
        those that cannot be asked.

        Args:
            known: by shard, whose its outbox is, and the last entry that was published.
        """
        calls: list[Call] = [
            ((cursors_key(shard),), (f"{lineage.epoch} {lineage.run} {published}",))
            for shard, (lineage, published) in known.items()
        ]
        shards = list(known)
        return {shards[at] for at in await self._news.run_for_few(self._redis, calls)}

    async def find_unpublished(self, shards: Sequence[str], *, stream_id: str, last_seq: int) -> set[str]:
        """The shards among these that have published something into another stream, or that this one has not up to this
        sequence, or that the archiver misses; in one round trip."""
        calls: list[Call] = [((cursors_key(shard),), ()) for shard in shards]
        told = await self._find_unpublished.run_for_few(self._redis, calls, [stream_id, last_seq])
        for answer in told.values():
            if isinstance(answer, Exception):
                raise answer
        return {shards[at] for at in told}

    async def turn(
        self,
        advances: Mapping[str, Advance],
        after: Mapping[str, int],
        *,
        token: str,
        stream_id: str,
        count: int,
    ) -> dict[str, Turn | Exception]:
        """Move `published` cursors up, and read the entries of shards after a number, at most ``count`` of each. A
        shard's cursor moves before the shard is read. All of it is one round trip. Where a step fails, its error stands
        in place of the turn at that shard.

        Args:
            advances: by shard, where its cursor is to be moved.
            after: by shard, where its outbox is to be read.
        """
        shards = list(dict.fromkeys((*after, *advances)))
        calls: list[Call] = [
            (
                [lease_key(shard), cursors_key(shard), outbox_key(shard)],
                [*_of_advance(advances.get(shard)), after.get(shard, "")],
            )
            for shard in shards
        ]
        parts = parts_of(self._redis, calls, _OUTBOXES_TOGETHER if after else _ADVANCES_TOGETHER)
        commands: list[Call] = [
            (
                [key for at in part for key in calls[at][0]],
                [token, stream_id, count, *(argument for at in part for argument in calls[at][1])],
            )
            for part in parts
        ]
        answers = answers_of(parts, await self._turn.run_all(self._redis, commands))
        return {shard: _decoded_turn(shard, answer) for shard, answer in zip(shards, answers, strict=True)}

    async def rewind_published(self, shard: str, *, token: str, stream_id: str) -> bool:
        """Move the `published` cursor back to `archived`, because JetStream lost messages; False without the lease."""
        keys = [lease_key(shard), cursors_key(shard)]
        return bool(await self._rewind.run(self._redis, keys, [token, stream_id]))


def _is_error(answer: Any) -> bool:
    """Whether it is an error, and not only that a node of a cluster cannot be asked."""
    return isinstance(answer, Exception) and not isinstance(answer, NodeAway)


def _raise_first(answers: Iterable[Any]) -> None:
    for answer in answers:
        if _is_error(answer):
            raise answer


def _of_advance(advance: Advance | None) -> Sequence[str | int]:
    """What ``turn.lua`` is told of it, in the order of its header."""
    if advance is None:
        return "", "", "", "", ""
    return advance.lineage.epoch, advance.lineage.run, advance.entry, advance.stream_seq, advance.after


def _decoded_turn(shard: str, answer: Any) -> Turn | Exception:
    if isinstance(answer, NodeAway):
        return Turn(False, None, [])
    if isinstance(answer, Exception):
        return answer
    moved, run, epoch, entries = answer
    try:
        return Turn(bool(moved), decode_lineage((run, epoch)), decode_script_entries(entries))
    except (KeyError, ValueError) as error:
        return UnreadableEntry(f"shard {shard}: {error!r}")
