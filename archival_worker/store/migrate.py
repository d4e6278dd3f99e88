"""Brings the schema up to date: numbered files, each applied once, in order, by one process at a time."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import asyncpg

from archival_worker.errors import MigrationChanged, MigrationError
from archival_worker.store.grants import grant
from shared.pacing.backoff import Backoff

logger = logging.getLogger(__name__)

FOLDER: Final = Path(__file__).parent / "sql" / "migrations"

_FILE_NAME: Final = re.compile(r"(\d{4})_[a-z0-9_]+\.sql")
# Any number will do that nothing else in the database uses for an advisory lock.
_LOCK: Final = 7_301_985_220
_CONNECT_TIMEOUT_S: Final = 5.0
# For one migration: one that writes every bid anew takes a minute or so for ten million.
_STATEMENT_TIMEOUT_S: Final = 6 * 3_600.0

_LEDGER: Final = """
CREATE TABLE IF NOT EXISTS schema_migrations (
    version    integer PRIMARY KEY,
    name       text NOT NULL,
    checksum   text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
)
"""


@dataclass(frozen=True, slots=True)
class Migration:
    """One file. ``checksum`` is the SHA-256 of its text."""

    version: int
    name: str
    text: str
    checksum: str


def read_migrations(folder: Path = FOLDER) -> list[Migration]:
    """The files of the folder, in order.

    Raises:
        MigrationError: a name that is not ``NNNN_words.sql``, or numbers that are not 1, 2, 3 …
    """
    migrations = []
    for path in sorted(folder.glob("*.sql")):
        match = _FILE_NAME.fullmatch(path.name)
        if match is None:
            raise MigrationError(f"migration {path.name} is not named NNNN_words.sql")
        text = path.read_text()
        migrations.append(Migration(int(match[1]), path.name, text, hashlib.sha256(text.encode()).hexdigest()))
    versions = [migration.version for migration in migrations]
    if versions != list(range(1, len(versions) + 1)):
        raise MigrationError(f"migrations are to be numbered 1, 2, 3 …, not {versions}")
    return migrations


async def migrate(url: str, *, wait_s: float = 60.0, folder: Path = FOLDER) -> list[str]:
    """Apply the missing migrations. Returns the names of those applied now.

    Safe to run any number of times, also at the same time: the others wait and then find nothing to do. A migration
    and its record are one transaction. A database with later migrations than this code is left as it is. Afterwards
    each account has the rights on tables that this code says (:mod:`archival_worker.store.grants`).

    Args:
        url: ``postgresql://…``.
        wait_s: how long to wait for the server to take connections, and then for another migration to end.
        folder: where the files are.

    Raises:
        MigrationChanged: an applied file has other content now. Nothing was applied.
        MigrationError: the server cannot be reached in time, or refused a migration; those before it are applied.
    """
    migrations = read_migrations(folder)
    connection = await _connect(url, wait_s)
    try:
        connection.add_log_listener(_tell)
        await _lock(connection, wait_s)
        await connection.execute(_LEDGER)
        applied = await _apply(connection, migrations)
        await grant(connection)
        return applied
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
        raise MigrationError(f"PostgreSQL: {type(error).__name__}: {error}") from error
    finally:
        # Closing the connection releases the lock, whatever happened.
        connection.terminate()


def _tell(_: object, message: asyncpg.PostgresLogMessage) -> None:
    """Log what a migration says of its progress."""
    if message.severity_en != "DEBUG" and not message.message.endswith("skipping"):
        logger.info("%s", message.message)


async def _connect(url: str, wait_s: float) -> asyncpg.Connection:
    """A connection, as soon as the server takes one."""
    loop = asyncio.get_running_loop()
    deadline_s = loop.time() + wait_s
    backoff = Backoff(first_s=0.1, most_s=2.0)
    while True:
        try:
            return await asyncpg.connect(url, timeout=_CONNECT_TIMEOUT_S, command_timeout=_STATEMENT_TIMEOUT_S)
        except (OSError, TimeoutError, asyncpg.CannotConnectNowError, asyncpg.TooManyConnectionsError) as error:
            pause_s = backoff.failed()
            if loop.time() + pause_s > deadline_s:
                raise MigrationError(
                    f"PostgreSQL did not take a connection within {wait_s:g} s: {str(error) or type(error).__name__}"
                ) from error
            logger.info("waiting for PostgreSQL: %s", str(error) or type(error).__name__)
            await asyncio.sleep(pause_s)
        except (asyncpg.PostgresError, asyncpg.InterfaceError, ValueError) as error:
            raise MigrationError(f"PostgreSQL refuses the connection: {error}") from error


async def _lock(connection: asyncpg.Connection, wait_s: float) -> None:
    await connection.execute(f"SET lock_timeout = {int(wait_s * 1_000)}")
    try:
        await connection.execute("SELECT pg_advisory_lock($1)", _LOCK)
    except asyncpg.LockNotAvailableError as error:
        raise MigrationError(f"another migration has been running for more than {wait_s:g} s") from error


async def _apply(connection: asyncpg.Connection, migrations: Sequence[Migration]) -> list[str]:
    rows = await connection.fetch("SELECT version, checksum FROM schema_migrations")
    applied = {row["version"]: row["checksum"] for row in rows}
    for migration in migrations:
        if applied.get(migration.version, migration.checksum) != migration.checksum:
            raise MigrationChanged(migration.name)
    newest = max(applied, default=0)
    if newest > len(migrations):
        logger.warning("the database is at migration %d, this code knows %d", newest, len(migrations))
    missing = [migration for migration in migrations if migration.version not in applied]
    for migration in missing:
        async with connection.transaction():
            await connection.execute(migration.text)
            await connection.execute(
                "INSERT INTO schema_migrations (version, name, checksum) VALUES ($1, $2, $3)",
                migration.version,
                migration.name,
                migration.checksum,
            )
        logger.info("applied %s", migration.name)
    return [migration.name for migration in missing]
