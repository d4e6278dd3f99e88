"""A filled database of the version before becomes one in parts, whole or not at all."""

from __future__ import annotations

import asyncio
import logging
import shutil
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from archival_worker.errors import MigrationError
from archival_worker.store.archive import Archive
from archival_worker.store.migrate import FOLDER, migrate
from infrastructure.local.stack import Stack
from shared.clients.postgres import open_postgres
from tests.integration.archive.archive_world import new_database
from tests.unit.archival_worker.events import bid, created, delivery
from tests.waiting import eventually

pytestmark = pytest.mark.integration

PARTED = "0013_partitions_and_retention.sql"
TABLES = ("bids", "event_hashes", "sealed")
FILL = """
    INSERT INTO bids
    SELECT 'lot-' || n % 300, 1, n / 300 + 1, 'bid-' || n, 'user-' || n % 1009, n, n - 1, 'bid',
           CASE n % 7 WHEN 0 THEN 'voided' WHEN 1 THEN 'repriced' ELSE 'valid' END, CASE n % 5 WHEN 0 THEN 'ann' END,
           'epoch'::timestamptz + n * interval '1 second 7 microseconds'
    FROM generate_series(0, 69999) AS n;
    INSERT INTO event_hashes SELECT item_id, epoch, seq, sha256(bid_id::bytea) FROM bids;
    INSERT INTO sealed
    SELECT item_id, epoch, seq, 1, seq, leader_id, amount, 0, user_id, bid_id, amount, NULL, NULL, NULL, placed_at
    FROM bids WHERE seq % 3 = 0;
    DELETE FROM bids WHERE seq = 11"""


BLOCKED = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"


def those_before(name: str, folder: Path) -> Path:
    """A folder with the migrations before the one with this name."""
    before = folder / f"before-{name}"
    shutil.copytree(FOLDER, before)
    for path in before.glob("*.sql"):
        if path.name >= name:
            path.unlink()
    return before


async def digests(connection: asyncpg.Connection) -> dict[str, str]:
    """A digest of each table's rows, whatever their order."""
    return {
        table: await connection.fetchval(
            f"SELECT count(*) || ' ' || md5(string_agg(t::text, '' ORDER BY t::text)) FROM {table} AS t"
        )
        for table in TABLES
    }


async def kinds(connection: asyncpg.Connection) -> dict[str, bytes]:
    rows = await connection.fetch("SELECT relname, relkind FROM pg_class WHERE relname = ANY ($1)", list(TABLES))
    return {row["relname"]: row["relkind"] for row in rows}


async def parts_of(connection: asyncpg.Connection, table: str) -> list[Any]:
    sql = "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = $1::text::regclass"
    return await connection.fetch(sql, table)


async def test_a_filled_database_is_taken_over(
    servers: Stack, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    url = await new_database(servers)
    await migrate(url, folder=those_before(PARTED, tmp_path))
    connection = await asyncpg.connect(url)
    reader = await asyncpg.connect(url)
    try:
        await connection.execute(FILL)
        rows = await digests(connection)

        # It is killed when all are in parts: it waits for somebody who makes a table of a name that it needs.
        await reader.execute("BEGIN; CREATE TABLE retired_items ()")
        migrating = asyncio.create_task(migrate(url))
        pid = await eventually(lambda: connection.fetchval(BLOCKED), seconds=60)
        assert await connection.fetchval("SELECT pg_terminate_backend($1)", pid)
        with pytest.raises(MigrationError):
            await migrating
        assert set((await kinds(connection)).values()) == {b"r"}
        assert await digests(connection) == rows
        assert await connection.fetchval("SELECT max(version) FROM schema_migrations") == 12
        await reader.execute("ROLLBACK")

        with caplog.at_level(logging.INFO):
            assert (await migrate(url))[0] == PARTED
        told = [record.getMessage() for record in caplog.records if "pages are in parts" in record.getMessage()]
        assert len(told) == 10
        assert told[-1].startswith("bids: ")
        assert await digests(connection) == rows
        assert set((await kinds(connection)).values()) == {b"p"}
        assert [len(await parts_of(connection, table)) for table in TABLES] == [16, 16, 16]
        for seq, bid_id in (("seq", "'another'"), ("9999", "bid_id")):
            with pytest.raises(asyncpg.UniqueViolationError):
                await connection.execute(
                    f"INSERT INTO bids SELECT item_id, epoch, {seq}, {bid_id}, user_id, amount, previous_bid, kind,"
                    " status, leader_id, placed_at FROM bids WHERE item_id = 'lot-1' AND seq = 1"
                )
        with pytest.raises(asyncpg.CheckViolationError):
            await connection.execute("UPDATE bids SET status = 'lost' WHERE item_id = 'lot-1'")
    finally:
        await connection.close()
        await reader.close()

    pool = await open_postgres(url, name="test", timeout_s=10)
    try:
        archive = Archive(pool)
        sent = [delivery(1, created("lot-new")), *(delivery(n + 1, bid("lot-new", n)) for n in range(1, 40))]
        stored = await archive.store(sent)
        assert (stored.bids, stored.copied, stored.duplicates) == (39, 39, 0)
        assert (await archive.store(sent)).duplicates == 40
    finally:
        pool.terminate()


async def bid_by(archiver: asyncpg.Connection, user: str, seq: int) -> None:
    """What an archiver of the version before writes for a bid."""
    place = f"('lot', 1, {seq}"
    await archiver.execute(
        f"INSERT INTO bids VALUES {place}, 'bid-{seq}', '{user}', {seq}, 0, 'bid', 'valid', '{user}', now())"
    )
    await archiver.execute(f"INSERT INTO event_hashes VALUES {place}, sha256('x'))")


async def test_what_the_version_before_chains_is_among_ones_bids(servers: Stack, tmp_path: Path) -> None:
    """A new version comes migrations first, and archivers one after the other."""
    url = await new_database(servers)
    await migrate(url, folder=those_before("0012_own_lists.sql", tmp_path))
    archiver, connection = await asyncpg.connect(url), await asyncpg.connect(url)
    try:
        await bid_by(archiver, "early", 1)
        await archiver.execute("BEGIN")
        await bid_by(archiver, "meanwhile", 2)
        migrating = asyncio.create_task(migrate(url, folder=those_before(PARTED, tmp_path)))

        async def waits_or_done() -> bool:
            return migrating.done() or bool(await connection.fetchval(BLOCKED))

        await eventually(waits_or_done, seconds=60)
        await archiver.execute("COMMIT")
        await migrating
        await bid_by(archiver, "between", 3)
        await migrate(url)
        await bid_by(archiver, "late", 4)
        rows = await connection.fetch("SELECT user_id FROM bidders ORDER BY first_bid_at")
        assert [row["user_id"] for row in rows] == ["early", "meanwhile", "between", "late"]
    finally:
        await archiver.close()
        await connection.close()


async def test_the_takeover_ends_in_no_deadlock_with_an_archiver(servers: Stack, tmp_path: Path) -> None:
    """It locks its shards first and then writes bids; shards can be read meanwhile."""
    url = await new_database(servers)
    await migrate(url, folder=those_before(PARTED, tmp_path))
    archiver, connection = await asyncpg.connect(url), await asyncpg.connect(url)
    try:
        await archiver.execute("BEGIN; SELECT FROM shard_cursors WHERE shard = 's00' FOR UPDATE")
        migrating = asyncio.create_task(migrate(url))
        await eventually(lambda: connection.fetchval(BLOCKED), seconds=60)
        await bid_by(archiver, "ann", 1)
        assert len(await connection.fetch("SELECT shard FROM shard_cursors")) == 64
        await archiver.execute("COMMIT")
        assert (await migrating)[0] == PARTED
    finally:
        await archiver.close()
        await connection.close()
