"""What the gateway reads from PostgreSQL: lists of items and histories of bids. Read-only; the worker owns the
schema."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Final

import asyncpg

from api_gateway.bids_in_order import Place, bid_by_id, bids_in_order
from shared.archive_reads.asking import Asking
from shared.archive_reads.catalogue import CataloguePage, Sort, catalogue_page
from shared.archive_reads.history import ArchivedBid, archived_bids
from shared.domain.voiding import LogEntry

# Most readers of a whole history at once. Each keeps a connection of the pool for as long as it reads.
_SNAPSHOTS_MAX: Final = 2


class Archive:
    """Queries with a bound on rows and on time; :class:`Unavailable` where PostgreSQL cannot answer."""

    def __init__(self, pool: asyncpg.Pool, *, timeout_s: float = 2.0) -> None:
        self.asking = Asking(pool, timeout_s=timeout_s)
        self._snapshots = asyncio.Semaphore(_SNAPSHOTS_MAX)

    async def list_items(self, *, status: str | None, sort: Sort, cursor: str | None, limit: int) -> CataloguePage:
        """Ids of items in order, and the cursor of the next page.

        Raises:
            InvalidInput: the cursor is not one that this list gave out.
            Unavailable: PostgreSQL cannot be asked.
        """
        return await catalogue_page(self.asking, status=status, sort=sort, cursor=cursor, limit=limit)

    async def bids(self, item_id: str, *, before: tuple[int, int] | None, limit: int) -> list[ArchivedBid]:
        """Archived bids of an item with ``(epoch, seq)`` below ``before``, newest first."""
        return await archived_bids(self.asking.fetch, item_id, before=before, limit=limit)

    async def accepted_bids(self, item_id: str, *, after: Place | None) -> AsyncGenerator[tuple[Place, LogEntry], None]:
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

    async def ping(self) -> None:
        """Raises :class:`Unavailable` where PostgreSQL does not answer."""
        await self.asking.fetch("SELECT 1")
