"""Copies the archived cursors from PostgreSQL to Redis, where the outbox is trimmed.

Copying is apart from the write path. While Redis is unreachable, archiving goes on; the newest position of each shard
is kept (so the number of shards is the bound) and sent again until it arrives. Positions are also collected for some
milliseconds, because each copy that moves a cursor is a write that Redis brings to disk between two bids.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Final

from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from archival_worker.errors import ArchiveUnavailable
from archival_worker.metrics import Metrics
from shared.clients.cluster.pipeline import NodeAway
from shared.pacing.backoff import Backoff, set_within
from shared.redis_layout.keys import cursors_key, opened_key, outbox_key
from shared.redis_layout.outbox import EntryId
from shared.redis_layout.scripts import Script

logger = logging.getLogger(__name__)

ADVANCE_ARCHIVED: Final = Script.read(Path(__file__).parent / "lua" / "advance_archived.lua")

_MOVED: Final = 1
_OTHER_EPOCH: Final = 2
_NO_CURSORS: Final = 3
_BEHIND: Final = 4
_UNPUBLISHED: Final = 5


@dataclass(frozen=True, slots=True)
class CopyOptions:
    """Intervals, in seconds.

    Attributes:
        interval_s: how long positions are collected before they are sent.
        resync_s: how often all positions are read from PostgreSQL and sent again, because Redis may have lost the
            newest (a failover), or another archiver may have died between COMMIT and copy.
        unpublished_s: when to send a position again that is past what the relay has published. Mostly the relay knows
            its PubAcks before anything is archived.
        away_s: when to send a position again whose node of a cluster could not be asked, or whose shard is damaged.
    """

    interval_s: float = 0.05
    unpublished_s: float = 0.25
    away_s: float = 1.0
    resync_s: float = 30.0


@dataclass(frozen=True, slots=True)
class _Reply:
    """The script's answer: what it did, and the cursors in Redis as they are now."""

    code: int
    epoch: int
    archived: int


class CursorCopier:
    """Brings the newest position of each shard to Redis, at least once, however often Redis is unreachable."""

    def __init__(
        self,
        redis: Redis,
        read_all: Callable[[], Awaitable[Mapping[str, EntryId]]],
        metrics: Metrics,
        options: CopyOptions = CopyOptions(),
    ) -> None:
        self._redis = redis
        self._read_all = read_all
        self._metrics = metrics
        self._options = options
        self._pending: dict[str, EntryId] = {}
        # Positions that a send has left out, until they are offered again, all at once: each send would begin a timer
        # of its own.
        self._left_out: dict[str, EntryId] = {}
        self._wake = asyncio.Event()
        self._stop = asyncio.Event()
        self.alarms: dict[str, str] = {}
        """Shards whose cursors in Redis and PostgreSQL contradict each other, or cannot be read, and how."""

    @property
    def pending(self) -> int:
        """Shards whose newest position is not in Redis yet."""
        return len(self._pending)

    def offer(self, positions: Mapping[str, EntryId]) -> None:
        """Copy these committed positions soon."""
        for shard, position in positions.items():
            if position.n > 0 and position > self._pending.get(shard, EntryId(0, 0)):
                self._pending[shard] = position
        if self._pending:
            self._wake.set()

    def request_stop(self) -> None:
        """Make :meth:`run` return after one last copy."""
        self._stop.set()
        self._wake.set()

    async def run(self) -> None:
        """Copy until asked to stop. A first full copy comes at the start."""
        backoff = Backoff()
        loop = asyncio.get_running_loop()
        resync_at = loop.time()
        while not self._stop.is_set():
            try:
                # First, because it needs no PostgreSQL: Redis can trim while PostgreSQL is unreachable, too.
                await self._copy_pending()
                if loop.time() >= resync_at:
                    await self._resync()
                    resync_at = loop.time() + self._options.resync_s
                backoff.succeeded()
            except (RedisError, OSError, TimeoutError, ArchiveUnavailable) as error:
                self._metrics.failures_by["archive" if isinstance(error, ArchiveUnavailable) else "redis"] += 1
                logger.warning("cannot copy archived cursors: %s: %s", type(error).__name__, error)
                await set_within(self._stop, backoff.failed())
                continue
            # The request to stop may have come before the event was cleared.
            if not self._stop.is_set() and await set_within(self._wake, max(0.0, resync_at - loop.time())):
                # A pause, so that the positions of several batches travel together.
                await set_within(self._stop, self._options.interval_s)
        await self._copy_last()

    async def _copy_last(self) -> None:
        try:
            await self._copy_pending()
        except (RedisError, OSError, TimeoutError) as error:
            logger.warning("archived cursors of %d shards not copied: %s; the next start does it", self.pending, error)

    async def _copy_pending(self) -> None:
        self._wake.clear()
        if not self._pending:
            return
        sent, self._pending = self._pending, {}
        try:
            await self._send(sent)
        except BaseException:
            newer, self._pending = self._pending, sent
            self.offer(newer)
            raise

    async def _send(self, positions: Mapping[str, EntryId]) -> dict[str, _Reply]:
        """Run the script for each shard in one round trip. Two kinds of shards are left out and offered again soon:
        those whose node of a cluster cannot be asked, while others can; and those that are damaged, which are an alarm
        until :meth:`_resync` has an answer of theirs."""
        calls = [
            (
                [cursors_key(shard), outbox_key(shard), opened_key(shard)],
                [position.epoch, position.n],
            )
            for shard, position in positions.items()
        ]
        replies = await ADVANCE_ARCHIVED.run_each(self._redis, calls)
        answers: dict[str, _Reply] = {}
        for shard, reply in zip(positions, replies, strict=True):
            if isinstance(reply, NodeAway):
                continue
            # Errors with a class of their own, such as READONLY, are about the server. This one is about the shard's
            # keys, say a wrong type, and the others must go on.
            if type(reply) is ResponseError:
                self._metrics.failures_by["redis"] += 1
                self._alarm(shard, f"Redis cannot move the shard's archived cursor: {reply}")
                continue
            if isinstance(reply, Exception):
                raise reply
            if len(reply) != len(fields(_Reply)):
                # A script's reply ends before a value that is no number.
                self._metrics.failures_by["redis"] += 1
                self._alarm(shard, "Redis cannot move the shard's archived cursor: the shard's cursors are no numbers")
                continue
            answers[shard] = _Reply(*map(int, reply))
        left_out = {shard: position for shard, position in positions.items() if shard not in answers}
        if left_out and not self._left_out:
            asyncio.get_running_loop().call_later(self._options.away_s, self._offer_left_out)
        self._left_out |= left_out
        self._metrics.cursor_copies += sum(reply.code == _MOVED for reply in answers.values())
        early = {shard: positions[shard] for shard, reply in answers.items() if reply.code == _UNPUBLISHED}
        if early:
            asyncio.get_running_loop().call_later(self._options.unpublished_s, self.offer, early)
        return answers

    def _offer_left_out(self) -> None:
        again, self._left_out = self._left_out, {}
        self.offer(again)

    def _alarm(self, shard: str, text: str) -> None:
        if self.alarms.get(shard) != text:
            logger.error("shard %s: %s", shard, text)
        self.alarms[shard] = text

    async def _resync(self) -> None:
        """Send every position, and compare, to find out whether either side has lost data."""
        positions = await self._read_all()
        replies = await self._send(positions)
        alarms: dict[str, str] = {}
        ahead: list[str] = []
        for shard, (epoch, n) in positions.items():
            reply = replies.get(shard)
            if reply is None:
                if shard in self.alarms:
                    alarms[shard] = self.alarms[shard]
                continue
            if reply.code == _NO_CURSORS and n > 0:
                alarms[shard] = f"Redis has no cursors, but {n} entries of epoch {epoch} are archived: Redis lost data"
            elif reply.code == _OTHER_EPOCH and reply.epoch < epoch:
                alarms[shard] = f"Redis is at shard epoch {reply.epoch}, but the archive at {epoch}: Redis went back"
            elif reply.code == _BEHIND:
                alarms[shard] = (
                    f"Redis has given out {reply.archived} entries of epoch {epoch}, but {n} are archived: "
                    "Redis went back"
                )
            elif reply.epoch >= epoch and reply.archived > (n if reply.epoch == epoch else 0):
                ahead.append(shard)
        if ahead:
            # Another archiver may have moved both between our two reads. PostgreSQL always moves first.
            again = await self._read_all()
            for shard in ahead:
                reply = replies[shard]
                if again[shard] < (reply.epoch, reply.archived):
                    alarms[shard] = (
                        f"Redis was told that {reply.archived} entries of epoch {reply.epoch} are archived, "
                        f"but PostgreSQL has {again[shard].n} of epoch {again[shard].epoch}: PostgreSQL lost data"
                    )
        for shard, text in alarms.items():
            self._alarm(shard, text)
        self.alarms = alarms
