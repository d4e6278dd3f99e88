"""Stands before every connection to Redis: no script runs on a Redis that went back in time.

An older copy of Redis has cursors, so its scripts would go on and give numbers out again. For Redis to run on another
copy, it must be restarted, or another Redis promoted. So each new connection asks which run of Redis it has reached,
and whether that is a primary. The first connection to an unknown run waits until that run's shards were compared with
what is known elsewhere, and those that are behind are closed. All other connections to the run wait for the same
comparison. A primary that became a replica and was promoted again is the same run with other data. Redis then gives its
data another replication id, so the connection asks for that, too. Between two starts of Redis this costs two commands
per connection, and nothing per bid.

On a cluster each node has runs of its own, and each is admitted by itself, for the shards that it has. A shard that
comes to a node which is admitted bears the mark of the node that had it. Whether that one was behind is not known: the
node is compared again before the shard is used there (:class:`shared.clients.cluster.client.ClusterClient` makes a new
connection first).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from typing import Any, Final, NamedTuple
from weakref import WeakKeyDictionary

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import AskError, ClusterDownError
from redis.exceptions import ConnectionError as RedisConnectionError

from shared import names
from shared.domain.errors import Unavailable
from shared.redis_layout.keys import cursors_key

Compare = Callable[[str], Awaitable[None]]


class NotAdmitted(RedisConnectionError):
    """Redis is there, and must not be used: it may be an older copy, or is no primary. The text says why."""


class _Reached(NamedTuple):
    """A Redis that was reached. ``run``: another one after each start. ``history``: the replication id, another one
    after each promotion; also an hour after the last replica has gone, which costs one comparison. ``shards``: those
    that it has."""

    run: str
    history: str
    shards: frozenset[str]


class _Admitted(NamedTuple):
    """A Redis that was let in, and the number of the comparison by which it was."""

    reached: _Reached
    comparison: int


_ALL: Final = frozenset(names.SHARDS)


class Guard:
    """Admits runs of Redis."""

    def __init__(self, compare: Compare, *, is_cluster: bool = False) -> None:
        """
        Args:
            compare: ``compare(run)`` closes the shards of that run that are behind, through connections that are not
                guarded. It raises Unavailable where nobody can tell now whether some are.
            is_cluster: the connections lead to nodes of a cluster.
        """
        self._compare = compare
        self._is_cluster = is_cluster
        # By run. No two have the same shard, so a single Redis has one at most.
        self._admitted: dict[str, _Admitted] = {}
        self._comparisons = 0
        self._lock = asyncio.Lock()
        self._runs: WeakKeyDictionary[AbstractConnection, str] = WeakKeyDictionary()

    @property
    def run(self) -> str:
        """The run of Redis that was admitted last, '' before the first one."""
        return next(reversed(self._admitted), "")

    def run_of(self, connection: AbstractConnection) -> str:
        """The run that this connection has reached, '' where it was never admitted."""
        return self._runs.get(connection, "")

    def forget(self, runs: Collection[str] | None = None) -> None:
        """Trust these runs no longer, or no run at all (None): the next connection is compared again."""
        for run in list(self._admitted) if runs is None else runs:
            self._admitted.pop(run, None)

    async def on_connect(self, connection: AbstractConnection) -> None:
        """For ``redis_connect_func``: the usual handshake, then the questions.

        Raises:
            NotAdmitted: this run of Redis cannot be admitted now; the connection is closed, the next one asks again.
            RedisError: it does not answer.
        """
        self._runs.pop(connection, None)
        try:
            await connection.on_connect()
            reached, marks = await _asked(connection, is_cluster=self._is_cluster)
            # A replica that becomes the primary keeps its run. Its data then has the mark of its last primary's run.
            # What was compared before these questions says nothing about a mark that they have found.
            since = 0 if marks <= {"", reached.run} else self._comparisons + 1
            if not self._is_admitted(reached, since):
                await self._admit(reached, since)
            self._runs[connection] = reached.run
        except BaseException:
            # The library closes a connection only for its own errors. If its caller is cancelled, it would return to
            # the pool open, and serve others without having been admitted.
            await connection.disconnect(nowait=True)
            raise

    def _is_admitted(self, reached: _Reached, since: int) -> bool:
        if reached.run not in self._admitted:
            return False
        known, comparison = self._admitted[reached.run]
        return comparison >= since and known.history == reached.history and reached.shards <= known.shards

    async def _admit(self, reached: _Reached, since: int) -> None:
        """Compare, unless another connection has meanwhile. ``since``: the first comparison that would do."""
        async with self._lock:
            if not self._is_admitted(reached, since):
                self._comparisons += 1
                comparison = self._comparisons
                try:
                    await self._compare(reached.run)
                except Unavailable as error:
                    raise NotAdmitted(str(error)) from error
                for other, _ in list(self._admitted.values()):
                    # A run that had one of these shards no longer has it, or had it in another history.
                    if other.run == reached.run or other.shards & reached.shards:
                        del self._admitted[other.run]
                self._admitted[reached.run] = _Admitted(reached, comparison)


async def _asked(connection: AbstractConnection, *, is_cluster: bool) -> tuple[_Reached, set[str]]:
    """Which Redis was reached, and the runs with which its open shards are marked. Of a single Redis only the first
    shard is looked at: all of them are marked together.

    Raises:
        NotAdmitted: it is a replica, or a node of a cluster that is taken for a single Redis.
        RedisError: it does not tell.
    """
    info = await _answer(connection, "INFO")
    run = info_field(info, "run_id")
    if info_field(info, "role") != "master":
        raise NotAdmitted("the Redis that was reached is a replica; try again later")
    if not is_cluster and "\ncluster_enabled:1" in info:
        raise NotAdmitted(
            "the Redis that was reached is a node of a cluster: REDIS_URL must begin with redis+cluster://"
        )
    marks: set[str] = set()
    shards: set[str] = set()
    asked = names.SHARDS if is_cluster else names.SHARDS[:1]
    for shard in asked:
        await connection.send_command("HMGET", cursors_key(shard), "epoch", "run")
    for shard in asked:
        try:
            epoch, marked = await _fields(connection)
        except (AskError, ClusterDownError):
            continue  # another node has it, or will have it
        shards.add(shard)
        if epoch:
            # A closed shard keeps its old mark. Nobody admits it, so with that mark every new connection would lead to
            # a comparison.
            marks.add(marked)
    history = info_field(info, "master_replid")
    return _Reached(run, history, frozenset(shards) if is_cluster else _ALL), marks


async def _fields(connection: AbstractConnection) -> list[str]:
    answers: Any = await connection.read_response()
    return [answer.decode() if isinstance(answer, bytes) else str(answer or "") for answer in answers]


async def _answer(connection: AbstractConnection, *words: str) -> str:
    await connection.send_command(*words)
    answer: Any = await connection.read_response()
    return answer.decode() if isinstance(answer, bytes) else str(answer or "")


def info_field(info: str, name: str) -> str:
    """A field of the answer to INFO.

    Raises:
        RedisError: it is not there.
    """
    for line in info.splitlines():
        if line.startswith(f"{name}:"):
            return line.removeprefix(f"{name}:")
    raise RedisConnectionError(f"Redis does not tell its {name}")
