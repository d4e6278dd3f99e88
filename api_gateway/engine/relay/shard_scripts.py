"""The scripts on shards: their leases and their cursors. One method per script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal
from uuid import uuid4

from redis.asyncio import Redis

from shared.clients.cluster.pipeline import NodeAway
from shared.redis_layout.cursors import Lineage, decode_lineage
from shared.redis_layout.keys import cursors_key, lease_key, outbox_key
from shared.redis_layout.outbox import Entry, decode_script_entries
from shared.redis_layout.scripts import Call, Script

_LUA: Final = Path(__file__).parent / "lua"

_OUTBOXES_TOGETHER: Final = 8
"""Outboxes in one reply: Redis has it in memory twice until it is sent."""

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
    _advance: Final = Script.read(_LUA / "advance_published.lua")
    _rewind: Final = Script.read(_LUA / "rewind_published.lua")
    _read: Final = Script.read(_LUA / "read_outbox.lua")

    def __init__(self, redis: Redis) -> None:
        self._redis = redis

    async def _run_each(self, script: Script, calls: Sequence[Call]) -> list[bool]:
        """False where a node of a cluster cannot be asked and others can."""
        answers = await script.run_each(self._redis, calls)
        for answer in answers:
            if isinstance(answer, Exception) and not isinstance(answer, NodeAway):
                raise answer
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

    async def lease(self, shards: Sequence[str], token: str, ttl_ms: int, *, hold: Hold = "keep") -> list[bool]:
        """Take or renew the relay's leases, in one round trip; False for a shard that somebody else holds, or whose
        node cannot be asked."""
        calls = [([lease_key(shard), cursors_key(shard)], [token, str(ttl_ms), hold]) for shard in shards]
        return await self._run_each(self._lease, calls)

    async def release(self, shards: Sequence[str], token: str) -> None:
        """Give leases back where they are still ours."""
        await self._run_each(self._release, [([lease_key(shard)], [token]) for shard in shards])

    async def read_outboxes(self, after: Mapping[str, int], *, count: int) -> list[tuple[Lineage | None, list[Entry]]]:
        """The entries of each shard after a number, at most ``count``, and their lineage; None where the shard is lost
        or closed, or its node cannot be asked and others can."""
        calls = [([outbox_key(shard), cursors_key(shard)], [number, count]) for shard, number in after.items()]
        found: list[tuple[Lineage | None, list[Entry]]] = []
        for answer in await self._read.run_each(self._redis, calls, together_max=_OUTBOXES_TOGETHER):
            if isinstance(answer, NodeAway):
                found.append((None, []))
                continue
            if isinstance(answer, Exception):
                raise answer
            run, epoch, entries = answer
            found.append((decode_lineage((run, epoch)), decode_script_entries(entries)))
        return found

    async def advance_published(self, advances: Sequence[Advance], *, token: str, stream_id: str) -> list[bool]:
        """Move `published` cursors up; False where the lease, the epoch or the run is no longer ours, or the cursor is
        before what was read."""
        return await self._run_each(
            self._advance,
            [
                (
                    [lease_key(advance.shard), cursors_key(advance.shard)],
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
        keys = [lease_key(shard), cursors_key(shard)]
        return bool(await self._rewind.run(self._redis, keys, [token, stream_id]))
