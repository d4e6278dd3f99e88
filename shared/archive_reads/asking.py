"""Questions to PostgreSQL, each with a bound on time, and all of them with a bound on how many are under way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, Final, TypeVar

import asyncpg

from shared.domain.errors import Unavailable

Answer = TypeVar("Answer")

Fetch = Callable[..., Awaitable[list[Any]]]
"""Asks PostgreSQL for the rows of a query with its arguments; raises :class:`Unavailable`."""

Connection = Any
"""asyncpg hands out a proxy of its connection class; the pool is typed, this is not."""

QUESTIONS_MAX: Final = 1_000


class Asking:
    """Reads through a pool, whose size bounds the connections. The pool stays with its owner."""

    def __init__(self, pool: asyncpg.Pool, *, timeout_s: float = 2.0, questions_max: int = QUESTIONS_MAX) -> None:
        """
        Args:
            timeout_s: bound of one question, with the wait for a connection.
            questions_max: questions under way, waiting ones among them; further ones are refused at once.
        """
        self._pool = pool
        self._timeout_s = timeout_s
        self._questions_max = questions_max
        self._under_way = 0

    async def fetch(self, query: str, *arguments: Any) -> list[asyncpg.Record]:
        """The rows of one query.

        Raises:
            Unavailable: PostgreSQL cannot be asked now.
            asyncpg.DataError: it cannot read an argument.
        """
        if self._under_way >= self._questions_max:
            raise Unavailable("too many questions to the archive are under way; try again", retry_after_s=1)
        self._under_way += 1
        try:
            return await self._answer(self._pool.fetch(query, *arguments))
        finally:
            self._under_way -= 1

    @asynccontextmanager
    async def snapshot(self) -> AsyncIterator[Fetch]:
        """The queries inside see the archive as it was at the first of them. Raises :class:`Unavailable`."""
        with translated():
            connection = await self._pool.acquire(timeout=self._timeout_s)
        is_idle = False

        async def fetch(query: str, *arguments: Any) -> list[asyncpg.Record]:
            nonlocal is_idle
            is_idle = False
            with translated():
                asked = connection.fetch(query, *arguments)
            rows = await self._answer(asked)
            is_idle = True
            return rows

        try:
            await fetch("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            yield fetch
        finally:
            try:
                if is_idle:
                    with suppress(Unavailable):
                        await fetch("ROLLBACK")
            finally:
                if not is_idle:
                    # A statement is under way and the server does not answer: ask nothing more on this connection. (If
                    # it broke, the pool has taken it from its holder.)
                    with suppress(asyncpg.InterfaceError):
                        connection.terminate()
                await self._answer(self._pool.release(connection))

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[Connection]:
        """A connection in a transaction that sees one moment and writes nothing, for answers that are read in pieces.
        Bound the time yourself; the connection of a caller that gives up is not used again.

        Raises:
            Unavailable: PostgreSQL cannot be asked now.
        """
        with translated():
            connection: Connection = await self._pool.acquire(timeout=self._timeout_s)
            try:
                async with connection.transaction(isolation="repeatable_read", readonly=True):
                    yield connection
            except asyncpg.PostgresError:
                raise
            except BaseException:
                # Broken or cancelled in a statement: asking the server to cancel it may take as long as it does.
                with suppress(asyncpg.InterfaceError):
                    connection.terminate()
                raise
            finally:
                await self._pool.release(connection, timeout=self._timeout_s)

    async def _answer(self, asked: Awaitable[Answer]) -> Answer:
        # Do not wait for a query that hangs: cancelling it would ask the same server that does not answer.
        task = asyncio.ensure_future(asked)
        try:
            done, _ = await asyncio.wait({task}, timeout=self._timeout_s)
        finally:
            # Also when the caller gives up. Harmless when the answer is there.
            task.cancel()
        if not done:
            raise Unavailable("the archive does not answer in time", retry_after_s=2)
        with translated():
            return task.result()


@contextmanager
def translated() -> Iterator[None]:
    """Translate the errors of the driver, except for ``asyncpg.DataError``: there PostgreSQL answers, and the query is
    wrong."""
    try:
        yield
    except asyncpg.DataError:
        raise
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
        raise Unavailable(f"the archive cannot be asked: {type(error).__name__}", retry_after_s=2) from error
