"""What the gateway reads from PostgreSQL of items that Redis has: histories of bids, and how far they are archived.
Read-only, like everything that gateways do there except for watch lists; the worker owns the schema."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Final

import asyncpg

from api_gateway.reads.bids_in_order import Bookmark, bid_by_id, bids_in_order
from shared.archive_reads.asking import Asking
from shared.archive_reads.history import ArchivedBid, archived_bids
from shared.archive_reads.retired import Retired, retired_item
from shared.domain.voiding import LogEntry

# Most readers of a whole history at once. Each keeps a connection of the pool for as long as it reads.
_SNAPSHOTS_MAX: Final = 2

# OFFSET 0 keeps the look at the chain one index probe per item; the planner would otherwise read all chains.
_KNOWN: Final = """
    SELECT i.item_id, i.created_at IS NOT NULL AND i.status IN ('sold', 'unsold', 'cancelled')
           AND EXISTS (
               SELECT FROM chains AS c WHERE (c.item_id, c.epoch, c.seq) = (i.item_id, i.epoch, i.seq) OFFSET 0
           ) AS is_closed
    FROM items AS i WHERE i.item_id = ANY ($1::text[])"""

# As `bidding dead-letters list` counts them: not those that a retry has settled.
_OPEN_LETTERS: Final = "FROM dead_letters WHERE outcome IS NULL OR outcome NOT IN ('stored', 'former_epoch', 'retired')"
_LETTERS: Final = f"""
    SELECT id, reason, left(detail, 500) AS detail, subject, (extract(epoch FROM at) * 1000000)::bigint AS at_us
    {_OPEN_LETTERS} ORDER BY id DESC LIMIT $1"""

_ACTS: Final = """
    SELECT act_id, act, target, reason, actor, login, (extract(epoch FROM done_at) * 1000000)::bigint AS at_us
    FROM acts WHERE $1::bigint IS NULL OR act_id < $1 ORDER BY act_id DESC LIMIT $2"""

_OPERATIONS: Final = """
    SELECT epoch, seq, type, body ->> 'by' AS by, body ->> 'reason' AS reason, body ->> 'bid_id' AS bid_id,
           CASE type WHEN 'end_moved' THEN (body ->> 'end_us')::bigint END AS end_us,
           (extract(epoch FROM at) * 1000000)::bigint AS at_us
    FROM events
    WHERE item_id = $1 AND type = ANY ('{paused,resumed,end_moved,cancelled,voided}')
    ORDER BY epoch DESC, seq DESC LIMIT $2"""

# Newest first: those on an item in the order of its shard's entries, those on a bidder in that of the bidder's home.
_RULINGS: Final = """
    SELECT nullif(r.user_id, '*') AS user_id, r.seller_id, r.ruling, r.reason, r.actor AS by,
           coalesce(r.currency, i.currency) AS currency, CASE r.ruling WHEN 'limit' THEN r.max_amount END AS amount,
           (extract(epoch FROM r.decided_at) * 1000000)::bigint AS at_us
    FROM rulings AS r LEFT JOIN items AS i USING (item_id)
    WHERE {} ORDER BY r.shard_epoch DESC, r.n DESC, r.at DESC LIMIT $2"""
_ON_ITEM: Final = _RULINGS.format("r.item_id = $1")
_ON_ALL: Final = _RULINGS.format("r.item_id IS NULL AND r.user_id = $1")


class Archive:
    """Queries with a bound on rows and on time; :class:`Unavailable` where PostgreSQL cannot answer."""

    def __init__(self, pool: asyncpg.Pool, *, timeout_s: float = 2.0) -> None:
        self.asking = Asking(pool, timeout_s=timeout_s)
        self._snapshots = asyncio.Semaphore(_SNAPSHOTS_MAX)

    async def bids(self, item_id: str, *, before: tuple[int, int] | None, limit: int) -> list[ArchivedBid]:
        """Archived bids of an item with ``(epoch, seq)`` below ``before``, newest first."""
        return await archived_bids(self.asking.fetch, item_id, before=before, limit=limit)

    async def accepted_bids(
        self, item_id: str, *, after: Bookmark | None
    ) -> AsyncGenerator[tuple[Bookmark, LogEntry], None]:
        """Every accepted bid after this place, oldest first, with its maximum, and the automatic bids after voids.

        It is for counting bids again, and for nothing that leaves this process: a maximum is its bidder's secret. The
        generator keeps a connection until it is closed: close it (``aclosing``) where it is not read to the end.

        Raises:
            Unavailable: PostgreSQL cannot be asked.
        """
        async with self._snapshots, self.asking.snapshot() as fetch:
            async for place, entry in bids_in_order(fetch, item_id, after):
                yield place, entry

    async def accepted_bid(self, item_id: str, bid_id: str) -> LogEntry | None:
        """One accepted bid with its maximum, as :meth:`accepted_bids` has it; None where it is not archived."""
        async with self.asking.snapshot() as fetch:
            return await bid_by_id(fetch, item_id, bid_id)

    async def count_voids(self, item_id: str) -> int:
        """How many voids of the item are archived."""
        rows = await self.asking.fetch("SELECT count(*) FROM events WHERE item_id = $1 AND type = 'voided'", item_id)
        return int(rows[0]["count"])

    async def known(self, item_ids: Sequence[str]) -> dict[str, bool]:
        """The items among these of which anything is archived, each with whether it is closed and all of it is
        archived."""
        rows = await self.asking.fetch(_KNOWN, list(item_ids))
        return {row["item_id"]: row["is_closed"] for row in rows}

    async def version(self, item_id: str) -> tuple[int, int] | None:
        """``(epoch, seq)`` up to which the item is archived, None where it is not in the archive yet."""
        rows = await self.asking.fetch("SELECT epoch, seq FROM items WHERE item_id = $1", item_id)
        return (rows[0]["epoch"], rows[0]["seq"]) if rows else None

    async def shard_places(self) -> list[tuple[str, int, int]]:
        """``(shard, epoch, n)`` of every shard of which anything is archived: its highest archived entry, or the
        beginning that a recovery gave it. A recovery that was given up counts too, since nothing of former epochs is
        archived any more."""
        rows = await self.asking.fetch(
            """
            WITH places AS (
                SELECT shard, shard_epoch, greatest(archived_n, (SELECT max(n) FROM unnest(ahead) AS n)) AS n
                FROM shard_cursors WHERE archived_n > 0 OR cardinality(ahead) > 0
                UNION ALL
                SELECT shard, shard_epoch, 0 FROM recoveries
            )
            SELECT DISTINCT ON (shard) shard, shard_epoch, n FROM places ORDER BY shard, shard_epoch DESC, n DESC
            """
        )
        return [(row["shard"], row["shard_epoch"], row["n"]) for row in rows]

    async def dead_letters(self, limit: int) -> tuple[int, list[asyncpg.Record]]:
        """How many messages could not be archived, and the newest of them."""
        [counted] = await self.asking.fetch(f"SELECT count(*) AS letters {_OPEN_LETTERS}")
        return int(counted["letters"]), await self.asking.fetch(_LETTERS, limit)

    async def retired(self, item_id: str) -> Retired | None:
        """Where the log of the item is, if it is not in the archive; ask after the log was read."""
        return await retired_item(self.asking.fetch, item_id)

    async def acts(self, before: int | None, limit: int) -> list[asyncpg.Record]:
        """What operators did to the platform, newest first; those before this ``act_id``."""
        return await self.asking.fetch(_ACTS, before, limit)

    async def operations(self, item_id: str, limit: int) -> list[asyncpg.Record]:
        """What was done to an item, by whom and why, newest first."""
        return await self.asking.fetch(_OPERATIONS, item_id, limit)

    async def rulings_on_item(self, item_id: str, limit: int) -> list[asyncpg.Record]:
        """What was ruled on bidders of this item, by whom and why, newest first."""
        return await self.asking.fetch(_ON_ITEM, item_id, limit)

    async def rulings_on_all(self, user_id: str, limit: int) -> list[asyncpg.Record]:
        """The same of one bidder, or of everybody (:data:`EVERYBODY`), for all items or for all of a seller."""
        return await self.asking.fetch(_ON_ALL, user_id, limit)

    async def ping(self) -> None:
        """Ask PostgreSQL for a sign of life. Raises :class:`Unavailable` where it does not answer."""
        await self.asking.fetch("SELECT 1")
