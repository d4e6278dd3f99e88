"""Connections of the pool, and the translation of the driver's errors."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, Final, NoReturn

import asyncpg

from archival_worker.errors import ArchiveUnavailable, MessageRefused
from shared.domain.errors import BiddingError

Connection = Any  # asyncpg hands out a proxy of its connection class; the pool is typed, this is not

# SQLSTATE classes that blame the data: data exception, integrity violation, program limit (a key too long to index,
# say). Everything else (connection, shutdown, read-only, disk full, lock, missing table) may be right a moment later.
_DATA_CLASSES: Final = ("22", "23", "54")

_DRIVER_ERRORS: Final = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,
    TimeoutError,
)

_ACQUIRE_TIMEOUT_S: Final = 10.0
_ASK_S: Final = 5.0


@asynccontextmanager
async def connection_of(
    pool: asyncpg.Pool, *, acquire_timeout_s: float = _ACQUIRE_TIMEOUT_S, blames_data: bool = False
) -> AsyncIterator[Connection]:
    """A connection, without a transaction. One whose statement was interrupted is not used again.

    Args:
        acquire_timeout_s: how long to wait for a free one.
        blames_data: tell data that PostgreSQL will never store from a server that cannot store now.

    Raises:
        ArchiveUnavailable: PostgreSQL cannot be asked now, or refuses.
        MessageRefused: it refuses the data itself; only with ``blames_data``.
    """
    with translated(blames_data=blames_data):
        async with pool.acquire(timeout=acquire_timeout_s) as connection:
            try:
                yield connection
            except asyncpg.ReadOnlySQLTransactionError:
                # After a failover this connection leads to the old primary; a new one may lead to the new primary.
                _cut(connection)
                raise
            except (asyncpg.PostgresError, BiddingError):
                raise
            except BaseException:
                # Broken, timed out or cancelled in the middle of a statement: the state of the connection is unknown,
                # and asking the server to cancel may take as long as the statement did.
                _cut(connection)
                raise


async def is_gone(connection: Connection) -> bool:
    """Whether the connection broke, and its locks with it.

    This asks the server: a process that was suspended may not have read yet that its connection was closed.
    """
    try:
        return not await connection.fetchval("SELECT true", timeout=_ASK_S)
    except _DRIVER_ERRORS:
        return True


def _cut(connection: Connection) -> None:
    """Close it at once, unless it is closed. This raises nothing, so that the first error is not hidden."""
    with suppress(asyncpg.InterfaceError):
        connection.terminate()


@contextmanager
def translated(*, blames_data: bool = False) -> Iterator[None]:
    """Translate the driver's errors into those that :func:`connection_of` raises."""
    try:
        yield
    except BiddingError:
        # An error of the code that uses the connection, such as that NATS is away, which is an OSError too.
        raise
    except _DRIVER_ERRORS as error:
        _translate(error, blames_data)


def _translate(error: Exception, blames_data: bool) -> NoReturn:
    text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    if blames_data and isinstance(error, asyncpg.InterfaceError) and isinstance(error, ValueError):
        # asyncpg's own refusal to encode an argument: out of range, or half a surrogate pair.
        raise MessageRefused(text) from error
    if isinstance(error, asyncpg.PostgresError):
        state = getattr(error, "sqlstate", None) or ""
        if blames_data and state.startswith(_DATA_CLASSES):
            raise MessageRefused(f"{state} {text}") from error
        if isinstance(
            error, asyncpg.UndefinedTableError | asyncpg.UndefinedColumnError | asyncpg.UndefinedFunctionError
        ):
            text += "; run `python -m archival_worker migrate`"
    raise ArchiveUnavailable(f"PostgreSQL: {text}") from error
