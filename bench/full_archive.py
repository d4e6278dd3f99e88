"""An archive with many open items, and one item with very many bids: rows as the archival worker leaves them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import asyncpg
import msgspec

LONG: str = "lot-1"
"""The item with the bids, raises and voids. It is closed."""

_ITEMS = """
    INSERT INTO items (item_id, name, description, seller_id, currency, start_price, increment_kind, increment_value,
                       start_at, original_end_at, created_at, epoch, seq, current_bid, bid_count, min_next_bid, status,
                       reserve_met, end_at, updated_at)
    SELECT 'lot-' || n, 'Desk lamp ' || n, 'Of brass', 'seller-' || n % 997, 'USD', 100, 'flat', 1, at,
           at + interval '7 days', at, 1, 3, (n::bigint * 7919) % 1000003, 3, 1,
           CASE WHEN n <= 11 THEN 'sold' WHEN n % 20 = 0 THEN 'paused' ELSE 'open' END, true,
           CASE WHEN n % 3 > 0 THEN at + interval '7 days' END, at
    FROM generate_series(1, $1::integer) AS n, LATERAL (SELECT now() + n * interval '1 second') AS made (at)"""
_BIDS = """
    INSERT INTO bids (item_id, epoch, seq, bid_id, user_id, amount, previous_bid, kind, placed_at)
    SELECT item, 1, n, item || '-' || n, 'user-' || n % 1009, n, n - 1, 'bid', now()
    FROM generate_series(1, $2::integer) AS n, LATERAL (SELECT $1::text) AS of_item (item)"""
# Of other items, so that no part of a table is so small that reading all of it is the quickest way.
_OTHER_BIDS = """
    INSERT INTO bids (item_id, epoch, seq, bid_id, user_id, amount, previous_bid, kind, placed_at)
    SELECT 'lot-' || n, 1, seq, 'lot-' || n || '-' || seq, 'user-' || n % 1009, seq, seq - 1, 'bid', now()
    FROM generate_series(1001, 2000) AS n, generate_series(1, 20) AS seq"""
_OTHER_FACTS = """
    INSERT INTO sealed (item_id, epoch, n, at, seq, leader_max, runner_up, user_id, bid_id, amount, max_amount, key,
                        verdict, decided_at)
    SELECT item_id, epoch, seq, 1, seq, amount, 0, user_id, bid_id, NULL, amount, 'key-' || seq, 'B|' || seq, placed_at
    FROM bids WHERE item_id IN (SELECT 'lot-' || n FROM generate_series(1001, 2000) AS n)"""
_FACTS = """
    INSERT INTO sealed (item_id, epoch, n, at, seq, leader_max, runner_up, user_id, bid_id, amount, max_amount, key,
                        verdict, decided_at)
    SELECT $1::text, 1, n, 1, n, n, 0, 'user-' || n % 1009, 'raise-' || n, NULL, n, 'key-' || n, 'M|' || n, now()
    FROM generate_series(1, $2::integer) AS n"""
_EVENTS = """
    INSERT INTO events (item_id, epoch, seq, type, body, at)
    SELECT $1::text, 1, $2::integer + n, CASE WHEN n % 2 = 0 THEN 'voided' ELSE 'extended' END,
           jsonb_build_object('bid_id', 'raise-' || n, 'extensions', n), now()
    FROM generate_series(1, $3::integer) AS n"""


_CREATED = """
    INSERT INTO events (item_id, epoch, seq, type, body, at)
    SELECT item_id, 1, 0, 'created', '{"type": "created"}', created_at FROM items"""


async def fill(connection: Any, *, items: int, bids: int) -> None:
    """So many items, and of :data:`LONG` so many bids, and a tenth as many raises and other events."""
    await connection.execute(_ITEMS, items)
    await connection.execute(_BIDS, LONG, bids)
    for number in range(2, 12):
        await connection.execute(_BIDS, f"lot-{number}", 100)
    await connection.execute(_OTHER_BIDS)
    await connection.execute(_OTHER_FACTS)
    await connection.execute(_FACTS, LONG, bids // 10)
    await connection.execute(_EVENTS, LONG, bids, bids // 10)
    await connection.execute(_CREATED)
    await connection.execute("UPDATE items SET epoch = 1, seq = $2 WHERE item_id = $1", LONG, bids + bids // 10)
    await connection.execute("INSERT INTO chains (item_id, epoch, seq) SELECT item_id, epoch, seq FROM items")
    for table in ("items", "bids", "sealed", "events", "chains"):
        await connection.execute(f"VACUUM ANALYZE {table}")


@dataclass
class Explained:
    """Asks PostgreSQL, and keeps how it found the rows. ``looked_at``: rows that it read to answer, over all tables."""

    connection: Any
    plans: list[dict[str, Any]] = field(default_factory=list)

    async def fetch(self, query: str, *arguments: Any) -> list[asyncpg.Record]:
        """The rows of one query."""
        told = await self.connection.fetchval(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {query}", *arguments)
        self.plans.append(msgspec.json.decode(told)[0])
        rows: list[asyncpg.Record] = await self.connection.fetch(query, *arguments)
        return rows

    def nodes(self) -> list[dict[str, Any]]:
        """All steps of all plans."""
        return [node for plan in self.plans for node in _nodes(plan["Plan"])]

    @property
    def took_ms(self) -> float:
        return float(sum(plan["Execution Time"] for plan in self.plans))


def _nodes(node: dict[str, Any]) -> list[dict[str, Any]]:
    return [node, *(inner for child in node.get("Plans", ()) for inner in _nodes(child))]


def rows_of(node: dict[str, Any]) -> float:
    """How many rows a step has read or dropped, in all of its turns."""
    return float((node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"])
