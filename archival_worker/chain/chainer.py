"""Extends the chains of hashes behind the write path, in order, and notes which closed items are to be exported, and
who has bid on what.

The worker offers the items of each committed batch. If this or another archiver dies between COMMIT and offer, a scan
of all items, at the start and every few minutes, finds them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

import asyncpg

from archival_worker.chain.hashes import Head, Version, extended
from archival_worker.errors import ArchiveUnavailable
from archival_worker.metrics import Metrics
from archival_worker.store.database import Connection, connection_of
from archival_worker.store.queries import load_chain_queries
from shared.pacing.backoff import Backoff, set_within

logger = logging.getLogger(__name__)

_WAITING_MAX: Final = 100_000
_GAPS_MAX: Final = 10_000


@dataclass(frozen=True, slots=True)
class ChainOptions:
    """How fast the chain follows.

    Attributes:
        rows_max: events per transaction.
        items_max: items per transaction.
        linger_s: how long items are collected when nothing waits.
        rest_ratio: while batches are being committed, each transaction is followed by a rest of this many times its own
            length: the write path comes first, and the chain catches up behind it. At 40 ms per 2,000 events (two
            cores) that allows some 12,000 events/s beside a busy write path, and four times that after it.
        scan_s: how often to scan all items.
        window: items per statement of the scan.
        gap_alarm_s: how long an item may wait for a missing event before that is an alarm. The item is looked at twice
            in that time, because another archiver may fill the gap, and this one would not hear of it.
    """

    rows_max: int = 2_000
    items_max: int = 200
    linger_s: float = 0.25
    rest_ratio: float = 3.0
    scan_s: float = 300.0
    window: int = 2_000
    gap_alarm_s: float = 60.0


@dataclass(frozen=True, slots=True)
class _Gap:
    after: Version
    since_s: float


def _nothing() -> None:
    return


class Chainer:
    """Several may run, in as many processes: an item's chain is locked by the one that extends it."""

    def __init__(
        self,
        pool: asyncpg.Pool,
        metrics: Metrics,
        options: ChainOptions = ChainOptions(),
        *,
        on_due: Callable[[], None] = _nothing,
    ) -> None:
        """``on_due`` is called when exports have become due."""
        self._pool = pool
        self._metrics = metrics
        self._options = options
        self._on_due = on_due
        self._sql = load_chain_queries()
        # A dict keeps the order in which they came.
        self._waiting: dict[str, None] = {}
        self._gaps: dict[str, _Gap] = {}
        self._wake = asyncio.Event()
        self._offers = 0
        self._scan_at_s = 0.0
        self._scan_after = ""
        self._gaps_at_s = 0.0

    @property
    def waiting(self) -> int:
        """Items that are to be looked at."""
        return len(self._waiting)

    @property
    def alarms(self) -> dict[str, str]:
        """Items that have waited too long for a missing event."""
        now_s = asyncio.get_running_loop().time()
        late = [item for item, gap in self._gaps.items() if now_s - gap.since_s > self._options.gap_alarm_s]
        if not late:
            return {}
        after = self._gaps[late[0]].after
        return {
            "chain": f"{len(late)} items wait for an event that is not archived, {late[0]} for the one after {after}"
        }

    def offer(self, item_ids: Iterable[str]) -> None:
        """Take items with newly committed events. Past 100,000 items they are left to the next scan."""
        if len(self._waiting) < _WAITING_MAX:
            self._waiting.update(dict.fromkeys(item_ids))
        self._offers += 1
        self._wake.set()

    async def run(self) -> None:
        """Extend chains until cancelled. An open transaction is rolled back then; its items are found after a start."""
        backoff = Backoff(most_s=30.0)
        loop = asyncio.get_running_loop()
        offers = self._offers
        while True:
            began_s = loop.time()
            try:
                if began_s >= self._scan_at_s and len(self._waiting) < self._options.window:
                    await self.scan()
                if began_s >= self._gaps_at_s:
                    self._waiting.update(dict.fromkeys(self._gaps))
                    self._gaps_at_s = began_s + self._options.gap_alarm_s / 2
                self._wake.clear()
                added = await self.once() if self._waiting else 0
                backoff.succeeded()
            except ArchiveUnavailable as error:
                self._metrics.failures_by["chain"] += 1
                logger.warning("cannot extend the chains: %s", error)
                await asyncio.sleep(backoff.failed())
                continue
            if self._waiting and added:
                is_busy, offers = self._offers != offers, self._offers
                took_s = loop.time() - began_s
                await asyncio.sleep(took_s * self._options.rest_ratio if is_busy else 0)
            else:
                # Items that still wait are locked by another archiver; they get a pause as well.
                if not self._waiting:
                    look_at_s = min(self._scan_at_s, self._gaps_at_s) if self._gaps else self._scan_at_s
                    await set_within(self._wake, max(0.0, look_at_s - loop.time()))
                offers = self._offers
                await asyncio.sleep(self._options.linger_s)

    async def scan(self) -> None:
        """Scan one window of the items for those with events past their chain.

        Raises:
            ArchiveUnavailable: PostgreSQL cannot be read now.
        """
        async with connection_of(self._pool) as connection:
            rows = await connection.fetch(self._sql.find_behind, self._scan_after, self._options.window)
        self.offer(row["item_id"] for row in rows if row["behind"])
        if len(rows) == self._options.window:
            self._scan_after = rows[-1]["item_id"]
        else:
            self._scan_after = ""
            self._scan_at_s = asyncio.get_running_loop().time() + self._options.scan_s

    async def once(self) -> int:
        """Extend the chains of the items that wait longest, in one transaction. Returns how many events were added.

        Raises:
            ArchiveUnavailable: nothing was added; the items wait again.
        """
        chosen = list(self._waiting)[: self._options.items_max]
        for item_id in chosen:
            del self._waiting[item_id]
        try:
            async with connection_of(self._pool) as connection, connection.transaction():
                await connection.execute(self._sql.relax)
                added, due, again = await self._extend(connection, chosen)
        except BaseException:
            self._waiting.update(dict.fromkeys(chosen))
            raise
        self._metrics.chained += added
        self._waiting.update(dict.fromkeys(again))
        if due:
            self._on_due()
        return added

    async def _extend(self, connection: Connection, item_ids: list[str]) -> tuple[int, int, list[str]]:
        """Events added, exports that became due, and the items that are to be looked at again."""
        await connection.execute(self._sql.begin_chains, item_ids)
        locked = await connection.fetch(self._sql.lock_chains, item_ids)
        heads = {row["item_id"]: Head(Version(row["epoch"], row["seq"]), row["hash"]) for row in locked}
        columns = list(zip(*((item, *head.place) for item, head in heads.items()), strict=True)) or [(), (), ()]
        rows_max = self._options.rows_max
        rows = await connection.fetch(self._sql.read_unchained, *map(list, columns), rows_max)
        rows_by: dict[str, list[asyncpg.Record]] = {item_id: [] for item_id in heads}
        for row in rows:
            rows_by[row["item_id"]].append(row)

        links: list[tuple[str, Head]] = []
        moved: list[tuple[str, Head]] = []
        bidders: dict[tuple[str, str], int] = {}
        for item_id, head in heads.items():
            added, missing_before = extended(head, rows_by[item_id])
            links += ((item_id, link) for link in added)
            if added:
                moved.append((item_id, added[-1]))
                bidders |= _bidders(item_id, rows_by[item_id], added[-1].place)
            self._note_gap(item_id, added[-1].place if added else head.place, missing_before)
        if links:
            await connection.execute(self._sql.insert_hashes, *_columns(links))
            await connection.execute(self._sql.move_chains, *_columns(moved))
        if bidders:
            users, items = zip(*bidders, strict=True)
            await connection.execute(self._sql.note_bidders, users, items, list(bidders.values()))
        due = await connection.fetchval(self._sql.add_exports, list(heads))
        # Another archiver has locked these, and may have read before our batch was committed; or not all rows fit.
        again = [item_id for item_id in item_ids if item_id not in heads]
        if len(rows) == rows_max:
            again += (item_id for item_id in heads if item_id not in self._gaps)
        return len(links), due, again

    def _note_gap(self, item_id: str, place: Version, missing_before: Version | None) -> None:
        """Note an item with a gap. The batch that fills the gap offers the item again."""
        known = self._gaps.get(item_id)
        if missing_before is None:
            self._gaps.pop(item_id, None)
        elif (known is None or known.after != place) and len(self._gaps) < _GAPS_MAX:
            self._gaps[item_id] = _Gap(place, asyncio.get_running_loop().time())


def _bidders(item_id: str, rows: list[asyncpg.Record], until: Version) -> dict[tuple[str, str], int]:
    """The users who have bid on the item, in rows up to this place, each with the microsecond of the first bid."""
    found: dict[tuple[str, str], int] = {}
    for row in rows:
        if row["user_id"] is not None and Version(row["epoch"], row["seq"]) <= until:
            found.setdefault((row["user_id"], item_id), row["at_us"])
    return found


def _columns(links: list[tuple[str, Head]]) -> tuple[list[str], list[int], list[int], list[bytes]]:
    return (
        [item_id for item_id, _ in links],
        [head.place.epoch for _, head in links],
        [head.place.seq for _, head in links],
        [head.hash for _, head in links],
    )
