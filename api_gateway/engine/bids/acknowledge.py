"""Levels of acknowledgement beyond the Lua commit: when may an accepted bid be answered 201?

``log``: when JetStream has the bid's outbox entry, so the bid survives the loss of Redis itself. The relay that owns
the shard may be in another gateway, so the shard's cursor is looked at as well.

``replica``: when enough replicas have it. They are asked on a connection of its own, so that no flush waits for a
replica that is away. One question serves all who wait.

Both confirm an entry of a lineage, never a bare number: what another run of Redis, or another epoch, did with the same
number says nothing about this one. A verdict that was found in Redis, and not decided just now, is an acknowledgement
too: ``secure`` of both levels waits until everything that the shard has decided so far is as safe.

A bid that is not confirmed in time is not refused: its outcome is unknown to the client, who repeats it under its key.
Refusals wait for nothing.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, Protocol

from redis.asyncio import Redis
from redis.asyncio.connection import AbstractConnection
from redis.exceptions import AskError, NoScriptError, RedisError, TryAgainError

from shared.clients.cluster.client import nodes_of
from shared.domain.errors import OutcomeUnknown
from shared.redis_layout.cursors import Lineage, read_cursors
from shared.redis_layout.keys import cursors_key, mark_key
from shared.redis_layout.scripts import Script

logger = logging.getLogger(__name__)

_POLL_S = 0.01
_PAUSE_FAILED_S = 0.1
WAITING_MAX: Final = 20_000
"""Callers that may wait for a confirmation; one more gets OutcomeUnknown at once."""


class Acknowledger(Protocol):
    """Says when a decision is as safe as an acknowledgement promises: never too early, and late by its time-out at
    most."""

    async def confirm(self, shard: str, lineage: Lineage, entry: int) -> None:
        """Return when the entry, and all before it, is safe.

        Raises:
            OutcomeUnknown: it is not, within the time allowed; it may be later.
        """
        ...

    async def secure(self, shard: str) -> None:
        """Return when everything that the shard has decided so far is safe.

        Raises:
            OutcomeUnknown: as :meth:`confirm`.
            RedisError, OSError: Redis cannot be asked.
        """
        ...

    async def run(self) -> None:
        """Work until cancelled."""
        ...


async def newest_entry(redis: Redis, shard: str) -> tuple[Lineage, int]:
    """The newest entry that the shard has given out.

    Raises:
        OutcomeUnknown: the shard is lost or closed, so nothing that it says is an acknowledgement.
        RedisError, OSError: the cursors cannot be read.
    """
    cursors = (await read_cursors(redis, [shard]))[shard]
    if cursors.lineage is None:
        raise OutcomeUnknown
    return cursors.lineage, cursors.next


class LogAcknowledger:
    """Waits for outbox entries to be published. Bounded by ``WAITING_MAX``."""

    def __init__(self, redis: Redis, *, timeout_s: float) -> None:
        """A relay of this process may call :meth:`published`, which is faster than looking."""
        self._redis = redis
        self._timeout_s = timeout_s
        self._waiting: dict[tuple[str, Lineage], list[tuple[int, int, asyncio.Future[None]]]] = {}
        self._count = 0
        self._order = itertools.count()
        self._wake = asyncio.Event()

    def published(self, shard: str, lineage: Lineage, entry: int) -> None:
        """The entry and all before it have a PubAck."""
        waiting = self._waiting.get((shard, lineage))
        if waiting is None:
            return
        while waiting and waiting[0][0] <= entry:
            future = heapq.heappop(waiting)[2]
            if not future.done():
                future.set_result(None)
        if not waiting:
            del self._waiting[shard, lineage]

    async def confirm(self, shard: str, lineage: Lineage, entry: int) -> None:
        """See :class:`Acknowledger`."""
        if self._count >= WAITING_MAX:
            raise OutcomeUnknown
        future = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting.setdefault((shard, lineage), []), (entry, next(self._order), future))
        self._count += 1
        self._wake.set()
        try:
            async with asyncio.timeout(self._timeout_s):
                await future
        except TimeoutError:
            raise OutcomeUnknown from None
        finally:
            self._count -= 1

    async def secure(self, shard: str) -> None:
        """See :class:`Acknowledger`."""
        await self.confirm(shard, *await newest_entry(self._redis, shard))

    async def run(self) -> None:
        """Look at the cursors of the shards for which somebody waits; until cancelled.

        This includes shards that this process relays. A flush of many items takes time, so the first entry may be
        published before the last item is answered, and so before anybody waits for it.
        """
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting:
                await asyncio.sleep(_POLL_S)
                self._drop_abandoned()
                if self._waiting:
                    await self._look(sorted({shard for shard, _ in self._waiting}))

    async def _look(self, shards: list[str]) -> None:
        try:
            nodes, _ = await nodes_of(self._redis, shards)
        except (RedisError, OSError, TimeoutError) as error:
            logger.info("acknowledgement: Redis cannot be asked: %s", error)
            return
        # Each node of a cluster by itself: those that wait for one do not wait for another.
        await asyncio.gather(*(self._look_at(node.shards) for node in nodes))

    async def _look_at(self, shards: list[str]) -> None:
        try:
            found = await read_cursors(self._redis, shards)
        except (RedisError, OSError, TimeoutError) as error:
            logger.info("acknowledgement: cursors cannot be read: %s", error)
            return
        for shard, cursors in found.items():
            if cursors.lineage is not None:
                self.published(shard, cursors.lineage, cursors.published)

    def _drop_abandoned(self) -> None:
        """Forget those whose time ran out, so that a shard nobody publishes is not looked at for ever."""
        for key, waiting in list(self._waiting.items()):
            alive = [entry for entry in waiting if not entry[2].done()]
            if alive:
                heapq.heapify(alive)
                self._waiting[key] = alive
            else:
                del self._waiting[key]


@dataclass(slots=True, eq=False)
class _Waiter:
    """A caller who waits until what a run of Redis has decided by now is safe; ``shard`` is one that it has."""

    shard: str
    run: str
    done: asyncio.Future[None] = field(repr=False)


class ReplicaAcknowledger:
    """Asks the replicas, one question at a time, on a connection of its own.

    WAIT covers only the writes of its own connection. So a mark is written first: replicas take writes in the primary's
    order, so a replica that has the mark has everything before it. A caller who comes while a question is under way
    waits for the next one.
    """

    _mark: Final = Script.read(Path(__file__).parent / "lua" / "mark.lua")

    def __init__(
        self,
        redis: Redis,
        *,
        replicas: int,
        timeout_ms: int,
        run_of: Callable[[AbstractConnection], str],
        shards_may_move: bool = False,
    ) -> None:
        """
        Args:
            replicas: how many must have it.
            timeout_ms: how long each caller waits at most.
            run_of: tells which run of Redis a connection has reached (``Guard.run_of``).
            shards_may_move: it is a node of a cluster. A mark is then written in each shard that is asked about: with a
                shard that has moved, this node's replicas have dropped the bid.
        """
        self._shards_may_move = shards_may_move
        self._redis = redis
        self._replicas = replicas
        self._timeout_ms = timeout_ms
        self._run_of = run_of
        self._waiting: list[_Waiter] = []
        self._count = 0
        self._wake = asyncio.Event()
        self._connection: AbstractConnection | None = None

    async def confirm(self, shard: str, lineage: Lineage, entry: int) -> None:
        """See :class:`Acknowledger`."""
        if self._count >= WAITING_MAX:
            raise OutcomeUnknown
        waiter = _Waiter(shard, lineage.run, asyncio.get_running_loop().create_future())
        self._waiting.append(waiter)
        self._count += 1
        self._wake.set()
        try:
            async with asyncio.timeout(self._timeout_ms / 1_000):
                await waiter.done
        except TimeoutError:
            raise OutcomeUnknown from None
        finally:
            self._count -= 1

    async def secure(self, shard: str) -> None:
        """See :class:`Acknowledger`."""
        await self.confirm(shard, *await newest_entry(self._redis, shard))

    async def run(self) -> None:
        """Ask while somebody waits; until cancelled."""
        try:
            while True:
                await self._wake.wait()
                self._wake.clear()
                while waiting := [waiter for waiter in self._waiting if not waiter.done.done()]:
                    self._waiting = []
                    try:
                        await self._ask(waiting)
                    except (RedisError, OSError, TimeoutError) as error:
                        logger.info("acknowledgement: the replicas cannot be asked: %s", error)
                        await self._drop()
                        await asyncio.sleep(_PAUSE_FAILED_S)
                    finally:
                        # Ask again for callers without an answer, as long as they wait; those who came since are last.
                        self._waiting = waiting + self._waiting
                self._waiting = []
        finally:
            await self._drop()

    async def _ask(self, waiting: list[_Waiter]) -> None:
        connection = await self._connected()
        run = self._run_of(connection)
        if any(waiter.run != run for waiter in waiting):
            # The run of the caller, or that of the connection, is gone. A new connection reaches the present one.
            await self._drop()
            connection = await self._connected()
            run = self._run_of(connection)
        async with asyncio.timeout(self._timeout_ms / 1_000 + 1):
            asked = {waiter.shard for waiter in waiting if waiter.run == run} or {waiting[-1].shard}
            gone = await self._write_marks(connection, sorted(asked) if self._shards_may_move else [*asked][:1])
            await connection.send_command("WAIT", self._replicas, self._timeout_ms)
            count: Any = await connection.read_response(timeout=self._timeout_ms / 1_000 + 1)
            if self._shards_may_move and count >= self._replicas:
                gone |= await self._no_longer_of(run, connection, sorted(asked - gone))
        for waiter in waiting:
            if waiter.run != run or waiter.shard in gone:
                # 1. A bid is decided by the primary. 2. It fails over to a replica that has not got the bid.
                # 3. The mark reaches that one's replicas. It says nothing about the bid.
                # Nor do the replicas of a node that has given the shard away, before the mark or behind it.
                if not waiter.done.done():
                    waiter.done.set_exception(OutcomeUnknown())
            elif count >= self._replicas and not waiter.done.done():
                waiter.done.set_result(None)

    async def _write_marks(self, connection: AbstractConnection, shards: Sequence[str]) -> set[str]:
        """A mark in each of these shards. Returns those that this node has no longer, or is giving away."""
        gone: set[str] = set()
        left = shards
        for verb, script in (("EVALSHA", self._mark.sha), ("EVAL", self._mark.text)):
            for shard in left:
                await connection.send_command(verb, script, 2, mark_key(shard), cursors_key(shard), self._timeout_ms)
            unknown: list[str] = []
            for shard in left:
                try:
                    await connection.read_response()
                except NoScriptError:
                    if verb == "EVAL":
                        raise
                    unknown.append(shard)
                except (AskError, TryAgainError):
                    gone.add(shard)
            left = unknown
            if not left:
                break
        return gone

    async def _no_longer_of(self, run: str, connection: AbstractConnection, shards: Sequence[str]) -> set[str]:
        """The shards among these that this node no longer has, or has again from another node.

        1. The mark is written. 2. The shard moves to another node, whose replicas need not have the bid yet. 3. The
        replicas of this node have got the mark, and then dropped the shard; WAIT counts them.
        """
        for shard in shards:
            await connection.send_command("HGET", cursors_key(shard), "run")
        gone: set[str] = set()
        for shard in shards:
            try:
                marked: Any = await connection.read_response()
            except (AskError, TryAgainError):
                gone.add(shard)
                continue
            if marked is None or marked.decode() != run:
                gone.add(shard)
        return gone

    async def _connected(self) -> AbstractConnection:
        if self._connection is None:
            self._connection = self._redis.connection_pool.make_connection()  # type: ignore[no-untyped-call]
        await self._connection.connect()
        return self._connection

    async def _drop(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.disconnect(nowait=True)
