"""Stands before every connection to Redis: no script runs on a Redis that went back in time.

An older copy of Redis has cursors, so its scripts would go on and give numbers out again. For Redis to run on another
copy, it must be restarted, or another Redis promoted. So each new connection asks which run of Redis it has reached,
and whether that is a primary. The first connection to an unknown run waits until that run's shards were compared with
what is known elsewhere, and those that are behind are closed. All other connections to the run wait for the same
comparison. A primary that became a replica and was promoted again is the same run with other data. Redis then gives its
data another replication id, so the connection asks for that, too. Between two starts of Redis this costs two commands
per connection, and nothing per bid.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from redis.asyncio.connection import AbstractConnection
from redis.exceptions import ConnectionError as RedisConnectionError

from shared import names
from shared.domain.errors import Unavailable
from shared.redis_layout.keys import cursors_key

Compare = Callable[[str], Awaitable[None]]


class NotAdmitted(RedisConnectionError):
    """Redis is there, and must not be used: it may be an older copy, or is no primary. The text says why."""


class _Reached(NamedTuple):
    """A Redis that was reached. ``run``: another one after each start. ``history``: the replication id, another one
    after each promotion; also an hour after the last replica has gone, which costs one comparison."""

    run: str
    history: str


class Guard:
    """Admits runs of Redis."""

    def __init__(self, compare: Compare) -> None:
        """``compare(run)`` closes the shards of that run that are behind, through connections that are not guarded.

        It raises Unavailable where nobody can tell now whether some are.
        """
        self._compare = compare
        self._admitted = _Reached("", "")
        self._lock = asyncio.Lock()
        self._runs: WeakKeyDictionary[AbstractConnection, str] = WeakKeyDictionary()

    @property
    def run(self) -> str:
        """The run of Redis that was admitted last, '' before the first one."""
        return self._admitted.run

    def run_of(self, connection: AbstractConnection) -> str:
        """The run that this connection has reached, '' where it was never admitted."""
        return self._runs.get(connection, "")

    def forget(self) -> None:
        """Trust no run any longer: the next connection is compared again."""
        self._admitted = _Reached("", "")

    async def on_connect(self, connection: AbstractConnection) -> None:
        """For ``redis_connect_func``: the usual handshake, then the questions.

        Raises:
            NotAdmitted: this run of Redis cannot be admitted now; the connection is closed, the next one asks again.
            RedisError: it does not answer.
        """
        self._runs.pop(connection, None)
        try:
            await connection.on_connect()
            reached, marked = await _asked(connection)
            # A replica that becomes the primary keeps its run. Its data then has the mark of its last primary's run.
            if reached != self._admitted or marked not in ("", reached.run):
                await self._admit(reached, is_sure=reached == self._admitted)
            self._runs[connection] = reached.run
        except BaseException:
            # The library closes a connection only for its own errors. If its caller is cancelled, it would return to
            # the pool open, and serve others without having been admitted.
            await connection.disconnect(nowait=True)
            raise

    async def _admit(self, reached: _Reached, *, is_sure: bool) -> None:
        """``is_sure``: compare again, although this run is the admitted one."""
        async with self._lock:
            if is_sure or reached != self._admitted:
                try:
                    await self._compare(reached.run)
                except Unavailable as error:
                    raise NotAdmitted(str(error)) from error
                self._admitted = reached


async def _asked(connection: AbstractConnection) -> tuple[_Reached, str]:
    """Which Redis it is; and the run with which its first shard is marked, '' where that shard is not open.

    Raises:
        NotAdmitted: it is a replica.
        RedisError: it does not tell.
    """
    info = await _answer(connection, "INFO")
    run = info_field(info, "run_id")
    if info_field(info, "role") != "master":
        raise NotAdmitted("the Redis that was reached is a replica; try again later")
    epoch, marked = await _fields(connection, cursors_key(names.SHARDS[0]), "epoch", "run")
    # A closed shard keeps its old mark. Nobody admits it, so that mark would make every connection be compared.
    return _Reached(run, info_field(info, "master_replid")), marked if epoch else ""


async def _fields(connection: AbstractConnection, key: str, *fields: str) -> list[str]:
    await connection.send_command("HMGET", key, *fields)
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
