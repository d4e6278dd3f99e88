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


async def digests(connection: asyncpg.Connection) -> dict[str, str]:
    """Of each table its rows, whatever their order."""
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
    before = tmp_path / "before"
    shutil.copytree(FOLDER, before)
    for path in before.glob("*.sql"):
        if path.name >= PARTED:
            path.unlink()
    await migrate(url, folder=before)
    connection = await asyncpg.connect(url)
    reader = await asyncpg.connect(url)
    try:
        await connection.execute(FILL)
        rows = await digests(connection)

        # It is killed when two of the tables are in parts: it waits for somebody who reads the third.
        await reader.execute("BEGIN; SELECT count(*) FROM sealed")
        migrating = asyncio.create_task(migrate(url))
        blocked = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        pid = await eventually(lambda: connection.fetchval(blocked), seconds=60)
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
