"""Closed items in the archive, as many as are wanted: rows of its own schema, as the archival worker leaves them."""

from __future__ import annotations

import time
from typing import Final

import asyncpg
import click

LOAD_MAX_S: Final = 180.0
_ROWS_PER_STEP: Final = 50_000
_INSERT: Final = """
    WITH made AS (
        INSERT INTO items (item_id, name, description, seller_id, currency, start_price, increment_kind,
                           increment_value, start_at, original_end_at, created_at, epoch, seq, current_bid,
                           highest_bidder_id, bid_count, min_next_bid, status, reserve_met, end_at, updated_at)
        SELECT 'lot-' || to_char(n, 'FM0000000'), 'Lot ' || n, repeat('An oil painting of a harbour at dawn. ', 3),
               'seller-' || n % 997, 'USD', 1000, 'flat', 100, at, at + interval '7 days', at, 1, 13, 2200 + n % 90000,
               'user-' || n % 10007, 12, 2300 + n % 90000, 'sold', true, at + interval '7 days', at + interval '7 days'
        FROM generate_series($1::integer, $2::integer) AS n,
             LATERAL (SELECT timestamptz '2026-01-01' + n * interval '1 second') AS made (at)
        RETURNING item_id, epoch, seq)
    INSERT INTO chains (item_id, epoch, seq) SELECT item_id, epoch, seq FROM made"""


def item_of(number: int) -> str:
    """The id of the item of that number, from 0."""
    return f"lot-{number:07}"


async def add_closed_items(url: str, rows: int) -> float:
    """Put the items 0 to ``rows`` - 1 into an empty archive; seconds that it took.

    Raises:
        click.ClickException: it takes longer than ``LOAD_MAX_S``.
    """
    connection = await asyncpg.connect(url, command_timeout=LOAD_MAX_S)
    began_s = time.perf_counter()
    try:
        for first in range(0, rows, _ROWS_PER_STEP):
            if time.perf_counter() - began_s > LOAD_MAX_S:
                raise click.ClickException(
                    f"{first:,} of {rows:,} items were loaded within {LOAD_MAX_S:g} s; ask for fewer with --rows"
                )
            await connection.execute(_INSERT, first, min(first + _ROWS_PER_STEP, rows) - 1)
        await connection.execute("VACUUM ANALYZE items")
        await connection.execute("VACUUM ANALYZE chains")
    finally:
        await connection.close()
    return time.perf_counter() - began_s


async def questions(url: str) -> int:
    """How many items were read by their key so far, as PostgreSQL counts it: one per question about an item.

    (Not how often the index was looked at: to plan a question, PostgreSQL looks twice.) A connection tells what it has
    done when it ends, at the latest.
    """
    connection = await asyncpg.connect(url)
    try:
        query = "SELECT idx_tup_fetch FROM pg_stat_user_indexes WHERE indexrelname = 'items_pkey'"
        return int(await connection.fetchval(query) or 0)
    finally:
        await connection.close()
