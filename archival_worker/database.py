"""A connection of the pool for the tasks beside the write path."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final

import asyncpg

from archival_worker.errors import ArchiveUnavailable

Connection = Any  # asyncpg hands out a proxy of its connection class; the pool is typed, this is not

_ACQUIRE_TIMEOUT_S: Final = 10.0


@asynccontextmanager
async def connection_of(pool: asyncpg.Pool) -> AsyncIterator[Connection]:
    """A connection; one on which something was cut off in the middle is not used again.

    Raises:
        ArchiveUnavailable: PostgreSQL cannot be asked now, or refuses.
    """
    try:
        async with pool.acquire(timeout=_ACQUIRE_TIMEOUT_S) as connection:
            try:
                yield connection
            except asyncpg.PostgresError:
                raise
            except BaseException:
                connection.terminate()
                raise
    except (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError) as error:
        raise ArchiveUnavailable(f"PostgreSQL: {type(error).__name__}: {error}") from error
    except (OSError, TimeoutError) as error:
        raise ArchiveUnavailable(f"PostgreSQL: {error or type(error).__name__}") from error
