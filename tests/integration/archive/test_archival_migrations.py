"""Migrations: once, in order, by one process at a time, and never changed afterwards."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import asyncpg
import pytest
import pytest_asyncio

from archival_worker.errors import MigrationChanged, MigrationError
from archival_worker.store.migrate import FOLDER, migrate
from infrastructure.local.servers.ports import free_ports
from infrastructure.local.stack import Stack
from shared import names
from tests.integration.archive.archive_world import new_database
from tests.tcp import serving

pytestmark = pytest.mark.integration


@pytest_asyncio.fixture
async def url(servers: Stack) -> str:
    """An empty database on the servers of the test run."""
    return await new_database(servers)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the project's migrations."""
    shutil.copytree(FOLDER, tmp_path / "migrations")
    return tmp_path / "migrations"


def add_migration(folder: Path, words: str, text: str) -> Path:
    """One more file, the next in order."""
    path = folder / f"{len(list(folder.glob('*.sql'))) + 1:04d}_{words}.sql"
    path.write_text(text)
    return path


async def query(url: str, sql: str) -> list[asyncpg.Record]:
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetch(sql)
    finally:
        await connection.close()


async def tables(url: str) -> set[str]:
    return {row["tablename"] for row in await query(url, "SELECT tablename FROM pg_tables WHERE schemaname = 'public'")}


async def test_a_second_run_finds_nothing_to_do(url: str) -> None:
    first = await migrate(url)
    assert first[0] == "0001_archive.sql"
    assert await migrate(url) == []
    assert {"items", "bids", "events", "shard_cursors", "dead_letters", "schema_migrations"} <= await tables(url)
    cursors = await query(url, "SELECT shard FROM shard_cursors ORDER BY shard")
    assert [row["shard"] for row in cursors] == list(names.SHARDS)


async def test_five_at_once_apply_each_migration_once(url: str) -> None:
    applied = await asyncio.gather(*(migrate(url) for _ in range(5)))
    assert sorted(len(names_applied) for names_applied in applied)[:4] == [0, 0, 0, 0]
    assert sorted(name for names_applied in applied for name in names_applied) == sorted(
        path.name for path in FOLDER.glob("*.sql")
    )


async def test_a_changed_file_is_refused(url: str, folder: Path) -> None:
    await migrate(url, folder=folder)
    with (folder / "0001_archive.sql").open("a") as file:
        file.write("\nDROP TABLE bids;\n")
    add_migration(folder, "more", "CREATE TABLE more (x integer);")
    with pytest.raises(MigrationChanged, match=r"0001_archive\.sql"):
        await migrate(url, folder=folder)
    assert "more" not in await tables(url)
    assert "bids" in await tables(url)


async def test_a_failing_migration_leaves_nothing_of_itself(url: str, folder: Path) -> None:
    bad = add_migration(folder, "bad", "CREATE TABLE half (x integer); SELECT no_such_function();")
    with pytest.raises(MigrationError, match="no_such_function"):
        await migrate(url, folder=folder)
    found = await tables(url)
    assert "half" not in found
    assert "bids" in found, "those before it are applied"
    bad.write_text("CREATE TABLE whole (x integer);")
    assert await migrate(url, folder=folder) == [bad.name]


async def test_a_newer_database_is_left_alone(url: str, folder: Path) -> None:
    newer = add_migration(folder, "newer", "CREATE TABLE newer (x integer);")
    await migrate(url, folder=folder)
    newer.unlink()
    assert await migrate(url, folder=folder) == []


async def test_the_wait_for_a_server_is_bounded() -> None:
    (port,) = free_ports(1)
    with pytest.raises(MigrationError, match="did not take a connection"):
        await migrate(f"postgresql://bidding@127.0.0.1:{port}/bidding", wait_s=0.3)


async def test_a_server_that_never_answers_is_named_with_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that is stopped: the kernel takes the connection, and the time-out that follows has no text of its own."""
    monkeypatch.setattr("archival_worker.store.migrate._CONNECT_TIMEOUT_S", 0.2)

    async def silent(reader: asyncio.StreamReader, _: asyncio.StreamWriter) -> None:
        await reader.read()

    async with serving(silent) as port:
        with pytest.raises(MigrationError, match=r"did not take a connection within 0.1 s: TimeoutError"):
            await migrate(f"postgresql://bidding@127.0.0.1:{port}/bidding", wait_s=0.1)


async def test_the_wait_for_another_migration_is_bounded(url: str) -> None:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute("SELECT pg_advisory_lock(7301985220)")
        with pytest.raises(MigrationError, match="another migration"):
            await migrate(url, wait_s=0.3)
    finally:
        await connection.close()
    assert await migrate(url, wait_s=60)


async def test_a_wrong_database_is_told_at_once(servers: Stack) -> None:
    with pytest.raises(MigrationError, match="does not exist"):
        await migrate(servers.urls.postgres_url + "_not", wait_s=60)
