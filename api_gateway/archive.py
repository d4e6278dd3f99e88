"""What the gateway reads from PostgreSQL: lists of items and histories of bids. Read-only; the worker owns the
schema."""

from __future__ import annotations

import asyncio
import base64
import binascii
import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeVar

import asyncpg
import msgspec

from api_gateway.bids_in_order import Fetch, Place, bid_by_id, bids_in_order
from shared.domain.errors import InvalidInput, Unavailable
from shared.domain.voiding import LogEntry

Sort = Literal["newest", "ending", "price"]
Answer = TypeVar("Answer")

# Keyset paging: each sort has its order, the value that goes into the cursor, and what comes after a cursor ($2, $3).
# An item without an end sorts last by end, so its place in the cursor is null.
_SORTS: Final[dict[str, tuple[str, str, str]]] = {
    "newest": ("created_at DESC, item_id DESC", "created_at", "(created_at, item_id) < ($2::timestamptz, $3)"),
    "ending": (
        "end_at, item_id",
        "end_at",
        "(end_at, item_id) > ($2::timestamptz, $3) OR end_at IS NULL AND ($2 IS NOT NULL OR item_id > $3)",
    ),
    "price": ("current_bid DESC, item_id DESC", "current_bid", "(current_bid, item_id) < ($2::bigint, $3)"),
}


_SELECT_BIDS: Final = """
    SELECT epoch, seq, bid_id, user_id, amount, kind, (extract(epoch FROM placed_at) * 1000000)::bigint AS ts_us,
           coalesce(leader_id, user_id) AS leader, status = 'voided' AS voided, status = 'repriced' AS repriced
    FROM bids"""


# Most readers of a whole history at once. Each keeps a connection of the pool for as long as it reads.
_SNAPSHOTS_MAX: Final = 2


@dataclass(frozen=True, slots=True)
class ArchivedBid:
    """A row of the history; ``amount`` in minor units, ``ts_us`` in microseconds.

    ``leader`` led right after it: its own bidder, unless a standing maximum beat the bid. ``repriced``: the bid stands,
    and the price that it set does not, because another one was struck.
    """

    epoch: int
    seq: int
    bid_id: str
    user_id: str
    amount: int
    kind: Literal["bid", "proxy", "buy_now"]
    ts_us: int
    leader: str
    voided: bool
    repriced: bool = False


class Archive:
    """Queries with a bound on rows and on time; :class:`Unavailable` where PostgreSQL cannot answer."""

    def __init__(self, pool: asyncpg.Pool, *, timeout_s: float = 2.0) -> None:
        self._pool = pool
        self._timeout_s = timeout_s
        self._snapshots = asyncio.Semaphore(_SNAPSHOTS_MAX)

    async def list_items(
        self, *, status: str | None, sort: Sort, cursor: str | None, limit: int
    ) -> tuple[list[str], str | None]:
        """Ids of items in order, and the cursor of the next page.

        Raises:
            InvalidInput: the cursor is not one that this list gave out.
            Unavailable: PostgreSQL cannot be asked.
        """
        order, place, beyond = _SORTS[sort]
        after_place, after_id = _decode_cursor(cursor, sort) if cursor else (None, None)
        # Rows without created_at are items whose `created` event is still on its way.
        try:
            rows = await self._fetch(
                f"""
                SELECT item_id, {place}::text AS place FROM items
                WHERE created_at IS NOT NULL AND ($1::text IS NULL OR status = $1)
                  AND ($3::text IS NULL OR {beyond.replace("$2", "$2::text")})
                ORDER BY {order}
                LIMIT $4
                """,
                status,
                after_place,
                after_id,
                limit + 1,
            )
        except asyncpg.DataError:
            # It looks like a place, but is none: the 32nd of a month, say.
            raise InvalidInput("cursor: use the next_cursor of the page before, unchanged") from None
        page = rows[:limit]
        more = len(rows) > limit
        next_cursor = _encode_cursor(sort, page[-1]["place"], page[-1]["item_id"]) if more else None
        return [row["item_id"] for row in page], next_cursor

    async def bids(self, item_id: str, *, before: tuple[int, int] | None, limit: int) -> list[ArchivedBid]:
        """Archived bids of an item with ``(epoch, seq)`` below ``before``, newest first."""
        epoch, seq = before or (2**31 - 1, 2**63 - 1)
        rows = await self._fetch(
            f"{_SELECT_BIDS} WHERE item_id = $1 AND (epoch, seq) < ($2, $3) ORDER BY epoch DESC, seq DESC LIMIT $4",
            item_id,
            epoch,
            seq,
            limit,
        )
        return [ArchivedBid(**dict(row)) for row in rows]

    async def accepted_bids(self, item_id: str, *, after: Place | None) -> AsyncGenerator[tuple[Place, LogEntry], None]:
        """Every accepted bid after this place, oldest first, with its maximum, and the automatic bids after voids.

        It is for counting bids again, and for nothing that leaves this process: a maximum is its bidder's secret. The
        generator keeps a connection until it is closed: close it (``aclosing``) where it is not read to the end.

        Raises:
            Unavailable: PostgreSQL cannot be asked.
        """
        async with self._snapshots, self._snapshot() as fetch:
            async for place, entry in bids_in_order(fetch, item_id, after):
                yield place, entry

    async def accepted_bid(self, item_id: str, bid_id: str) -> LogEntry | None:
        """One accepted bid with its maximum, as :meth:`accepted_bids` has it; None where it is not archived."""
        async with self._snapshot() as fetch:
            return await bid_by_id(fetch, item_id, bid_id)

    async def count_voids(self, item_id: str) -> int:
        """How many voids of the item are archived."""
        rows = await self._fetch("SELECT count(*) FROM events WHERE item_id = $1 AND type = 'voided'", item_id)
        return int(rows[0]["count"])

    async def version(self, item_id: str) -> tuple[int, int] | None:
        """``(epoch, seq)`` up to which the item is archived, None where it is not in the archive yet."""
        rows = await self._fetch("SELECT epoch, seq FROM items WHERE item_id = $1", item_id)
        return (rows[0]["epoch"], rows[0]["seq"]) if rows else None

    async def shard_places(self) -> list[tuple[str, int, int]]:
        """``(shard, epoch, n)`` of every shard of which anything is archived: its highest archived entry, or the
        beginning that a recovery gave it. A recovery that was given up counts too, since nothing of former epochs is
        archived any more."""
        rows = await self._fetch(
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
        await self._fetch("SELECT 1")

    async def _fetch(self, query: str, *arguments: Any) -> list[asyncpg.Record]:
        """Raises :class:`Unavailable`, or ``asyncpg.DataError`` for an argument that PostgreSQL cannot read."""
        return await self._answer(self._pool.fetch(query, *arguments))

    @asynccontextmanager
    async def _snapshot(self) -> AsyncIterator[Fetch]:
        """The queries inside see the archive as it was at the first of them. Raises :class:`Unavailable`."""
        with _translated():
            connection = await self._pool.acquire(timeout=self._timeout_s)
        is_idle = False

        async def fetch(query: str, *arguments: Any) -> list[asyncpg.Record]:
            nonlocal is_idle
            is_idle = False
            with _translated():
                asked = connection.fetch(query, *arguments)
            rows = await self._answer(asked)
            is_idle = True
            return rows

        try:
            await fetch("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            yield fetch
        finally:
            try:
                if is_idle:
                    with suppress(Unavailable):
                        await fetch("ROLLBACK")
            finally:
                if not is_idle:
                    # A statement is under way and the server does not answer: ask nothing more on this connection. (If
                    # it broke, the pool has taken it from its holder.)
                    with suppress(asyncpg.InterfaceError):
                        connection.terminate()
                await self._answer(self._pool.release(connection))

    async def _answer(self, asked: Awaitable[Answer]) -> Answer:
        # Do not wait for a query that hangs: cancelling it would ask the same server that does not answer.
        task = asyncio.ensure_future(asked)
        try:
            done, _ = await asyncio.wait({task}, timeout=self._timeout_s)
        finally:
            # Also when the caller gives up. Harmless when the answer is there.
            task.cancel()
        if not done:
            raise Unavailable("the archive does not answer in time", retry_after_s=2)
        with _translated():
            return task.result()


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except asyncpg.DataError:
        raise  # PostgreSQL answers: the query is wrong
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
        raise Unavailable(f"the archive cannot be asked: {type(error).__name__}", retry_after_s=2) from error


def _encode_cursor(sort: str, place: str | None, item_id: str) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode((sort, place, item_id))).decode().rstrip("=")


_NUMBER: Final = re.compile(r"\d{1,19}\Z")
_INSTANT: Final = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d{1,6})?[+-]\d\d(:\d\d)?\Z")
_cursor_decoder = msgspec.json.Decoder(tuple[str, str | None, str])


def _decode_cursor(cursor: str, sort: str) -> tuple[str | None, str]:
    try:
        padded = cursor + "=" * (-len(cursor) % 4)
        for_sort, place, item_id = _cursor_decoder.decode(base64.urlsafe_b64decode(padded))
    except (ValueError, binascii.Error, msgspec.DecodeError):
        raise InvalidInput("cursor: use the next_cursor of the page before, unchanged") from None
    pattern = _NUMBER if sort == "price" else _INSTANT
    well_formed = sort == "ending" if place is None else pattern.match(place) is not None
    if for_sort != sort or not well_formed:
        raise InvalidInput("cursor: it belongs to another sort order; start again without it")
    return place, item_id
