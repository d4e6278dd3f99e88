"""The SQL side: one transaction per batch, in which each message is stored, known already, a clash, a poison, or of an
epoch that is over."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import asyncpg

from archival_worker.consume.deliveries import Delivery
from archival_worker.errors import ArchiveUnavailable, MessageRefused
from archival_worker.outbox.watermark import Watermark, flattened, unflattened
from archival_worker.store import columns
from archival_worker.store.copy_rows import COPY_COLUMNS, copy_data
from archival_worker.store.database import Connection, connection_of, translated
from archival_worker.store.queries import Queries, load_queries
from archival_worker.store.retired import Spans, has_all, spans_of
from archival_worker.store.sorted_batch import DeadLetter, SortedBatch
from shared.archive_reads.origin import closed_items
from shared.names import OutboxEntry
from shared.redis_layout.outbox import EntryId

logger = logging.getLogger(__name__)

_DETAIL_MAX: Final = 500


class DeadLetterCounts(NamedTuple):
    """How many dead letters are not settled; how many of these are clashes (a number was given out twice), and how many
    came after their shard was rebuilt without them."""

    all: int
    clashes: int
    former: int


@dataclass(slots=True)
class Stored:
    """What a transaction did.

    Attributes:
        bids, events, sealed: rows that are new; rulings and acts are counted among the sealed facts.
        copied: how many of the bids came by COPY.
        duplicates: rows that were stored already, with the same content.
        clashes: events, sealed facts, rulings and acts whose place is taken by something else, known dead letters
            among them.
        dead_letters: ``(reason, detail)`` of each new row in ``dead_letters``.
        positions: the archived cursor of every shard in the batch, moved or not.
        unknown: types that this version does not know, one for each such event; those events are stored whole.
    """

    bids: int = 0
    events: int = 0
    sealed: int = 0
    copied: int = 0
    duplicates: int = 0
    clashes: int = 0
    dead_letters: list[tuple[str, str]] = field(default_factory=list)
    positions: dict[str, EntryId] = field(default_factory=dict)
    unknown: list[str] = field(default_factory=list)

    def add(self, other: Stored) -> None:
        """Add the counts of a later transaction."""
        self.bids += other.bids
        self.events += other.events
        self.sealed += other.sealed
        self.copied += other.copied
        self.duplicates += other.duplicates
        self.clashes += other.clashes
        self.dead_letters += other.dead_letters
        self.positions |= other.positions
        self.unknown += other.unknown


class Archive:
    """Stores deliveries; atomic per transaction, and idempotent: the same delivery again changes nothing."""

    def __init__(self, pool: asyncpg.Pool, *, queries: Queries | None = None, acquire_timeout_s: float = 10.0) -> None:
        self._pool = pool
        self._sql = queries or load_queries()
        self._acquire_timeout_s = acquire_timeout_s
        # Whether to try the next batch by COPY. It is most likely like the last one, new or known. A COPY that fails
        # half-way leaves dead rows behind, so when a whole stream is read again, not every batch must fail that way.
        self._expects_new = True

    async def store(
        self, deliveries: Sequence[Delivery], *, meanwhile: Callable[[], Awaitable[None]] | None = None
    ) -> Stored:
        """Store a batch and return after its COMMIT.

        ``meanwhile`` is awaited just before PostgreSQL gets the bids, its longest piece of work: once, or twice where
        it does not take them by COPY, or never where it refuses the batch before. It must not raise.

        One transaction, unless PostgreSQL refuses the data of some message: then the batch is halved until that
        message is alone, and becomes a dead letter, while all others are stored.

        Raises:
            ArchiveUnavailable: some or all of the batch is not stored, or that is unknown; store it again.
        """
        try:
            return await self._store_at_once(deliveries, meanwhile)
        except MessageRefused as error:
            if len(deliveries) == 1:
                return await self._put_aside(deliveries[0], str(error))
            half = len(deliveries) // 2
            stored = await self.store(deliveries[:half])
            stored.add(await self.store(deliveries[half:]))
            return stored

    async def _put_aside(self, delivery: Delivery, fault: str) -> Stored:
        try:
            return await self._store_at_once([delivery.as_poison(fault)])
        except MessageRefused as error:
            # Not accepted even as a dead letter: something is wrong with the table, not with the message.
            raise ArchiveUnavailable(f"a dead letter is refused: {error}") from error

    async def _store_at_once(
        self, deliveries: Sequence[Delivery], meanwhile: Callable[[], Awaitable[None]] | None = None
    ) -> Stored:
        async with self.transaction() as connection:
            return await self.write(connection, deliveries, meanwhile=meanwhile)

    async def write(
        self,
        connection: Connection,
        deliveries: Sequence[Delivery],
        *,
        may_be_late: bool = False,
        meanwhile: Callable[[], Awaitable[None]] | None = None,
    ) -> Stored:
        """Store deliveries within the caller's transaction: all of them, or none if it is rolled back.

        Args:
            connection: of :meth:`transaction`.
            deliveries: any number.
            may_be_late: later events may be stored already, among them a void of one of these bids.
            meanwhile: as for :meth:`store`.
        """
        shards = sorted({delivery.entry.shard for delivery in deliveries if delivery.entry is not None})
        cursors = await self._lock_cursors(connection, shards)
        watermarks = {shard: mark for shard, (mark, _) in cursors.items()}
        fences = await self._read_fences(connection, shards)
        retired = await self._read_retired(connection, deliveries, cursors)
        batch = SortedBatch.of(deliveries, fences, retired)
        known = await self._judge_former(connection, batch, fences)
        copied = await self._copy_bids(connection, batch, meanwhile)
        if not copied and meanwhile is not None:
            await meanwhile()
        bids = copied or await self._insert_bids(connection, batch)
        events = await self._insert_events(connection, batch)
        sealed = await self._insert_sealed(connection, batch) + await self._insert_rulings(connection, batch)
        sealed += await self._insert_acts(connection, batch)
        if may_be_late or any(_may_fill_gap(mark, batch) for mark in watermarks.items()):
            await connection.execute(self._sql.apply_voids_to_late, *columns.places([bid for bid, _ in batch.bids]))
        if batch.voids:
            await connection.execute(self._sql.apply_voids, *columns.places(batch.voids))
        await self._store_items(connection, batch)
        letters = await self._insert_dead_letters(connection, batch.dead_letters)
        positions = await self._move_cursors(connection, watermarks, batch)
        duplicates = known + batch.known + batch.rows - bids - events - sealed - batch.clashes
        return Stored(bids, events, sealed, copied, duplicates, batch.clashes, letters, positions, batch.unknown)

    async def _lock_cursors(self, connection: Connection, shards: Sequence[str]) -> dict[str, tuple[Watermark, int]]:
        """Lock these shards. Returns how far each of them is archived, and how many of its items are retired."""
        rows = await connection.fetch(self._sql.lock_cursors, shards)
        if len(rows) != len(shards):
            raise ArchiveUnavailable("shard_cursors lacks rows; run `python -m archival_worker migrate`")
        return {
            row["shard"]: (Watermark(row["shard_epoch"], row["archived_n"], unflattened(row["ahead"])), row["retired"])
            for row in rows
        }

    async def _read_fences(self, connection: Connection, shards: Sequence[str]) -> dict[str, int]:
        """The newest epoch of each shard that was ever rebuilt. Call ``_lock_cursors`` first."""
        rows = await connection.fetch(self._sql.read_fences, shards)
        return {row["shard"]: row["epoch"] for row in rows}

    async def _read_retired(
        self, connection: Connection, deliveries: Sequence[Delivery], cursors: Mapping[str, tuple[Watermark, int]]
    ) -> dict[str, Spans]:
        """The retired items among these, each with the events that it had; ``cursors`` are from ``_lock_cursors``."""
        having = {shard for shard, (_, retired) in cursors.items() if retired}
        if not having:
            return {}
        items = {each.batch.item_id for each in deliveries if each.batch is not None and each.batch.shard in having}
        rows = await connection.fetch(self._sql.read_retired, list(items))
        return {row["item_id"]: spans_of(row["spans"]) for row in rows}

    async def is_late(self, connection: Connection, delivery: Delivery) -> bool:
        """Whether the delivery is of a retired item and has something that the item's export lacks, and stays so for
        the rest of the transaction.

        Raises:
            ArchiveUnavailable: the schema is not complete.
        """
        if delivery.entry is None or delivery.batch is None:
            return False
        cursors = await self._lock_cursors(connection, [delivery.entry.shard])
        spans = (await self._read_retired(connection, [delivery], cursors)).get(delivery.batch.item_id)
        return spans is not None and not has_all(spans, delivery)

    async def is_former(self, connection: Connection, entry: OutboxEntry) -> bool:
        """Whether the entry is of an epoch that is over, and stays so for the rest of the transaction.

        Raises:
            ArchiveUnavailable: the schema is not complete.
        """
        await self._lock_cursors(connection, [entry.shard])
        fences = await self._read_fences(connection, [entry.shard])
        return entry.epoch < fences.get(entry.shard, 0)

    async def begin_recovery(self, connection: Connection, shard: str, *, above: int = 0) -> int:
        """Record a new epoch of a shard, higher than every one that the shard ever had, and return it.

        After COMMIT nothing of a former epoch is stored any more; what was stored before can be read.

        Args:
            connection: of :meth:`transaction`.
            above: an epoch that the shard had, and that PostgreSQL may have forgotten.

        Raises:
            ArchiveUnavailable: the schema is not complete.
        """
        await self._lock_cursors(connection, [shard])
        epoch: int = await connection.fetchval(self._sql.begin_recovery, shard, above)
        return epoch

    async def _judge_former(self, connection: Connection, batch: SortedBatch, fences: Mapping[str, int]) -> int:
        """Quarantine messages of epochs that are over. Returns how many of their rows are stored already: no harm.

        They move no cursor: their shard has a new outbox now.
        """
        if not batch.former:
            return 0
        former = SortedBatch.of(batch.former)
        unknown: list[int] = []
        if former.bids:
            bids = columns.bid_columns([bid for bid, _ in former.bids])
            rows = await connection.fetch(self._sql.find_bid_clashes, *bids[:6])
            unknown += (id(former.bids[row["ordinal"] - 1][1]) for row in rows)
        if former.events:
            events = columns.event_columns([event for event, _ in former.events])
            rows = await connection.fetch(self._sql.find_event_clashes, *events[:5])
            unknown += (id(former.events[row["ordinal"] - 1][1]) for row in rows)
        if former.sealed:
            facts = columns.sealed_columns([fact for fact, _ in former.sealed])
            rows = await connection.fetch(self._sql.find_sealed_clashes, *facts)
            unknown += (id(former.sealed[row["ordinal"] - 1][1]) for row in rows)
        if former.rulings:
            rulings = columns.ruling_columns([row for row, _ in former.rulings])
            rows = await connection.fetch(self._sql.find_ruling_clashes, *rulings)
            unknown += (id(former.rulings[row["ordinal"] - 1][1]) for row in rows)
        if former.acts:
            acts = columns.act_columns([row for row, _ in former.acts])
            rows = await connection.fetch(self._sql.find_act_clashes, *acts)
            unknown += (id(former.acts[row["ordinal"] - 1][1]) for row in rows)
        late = set(unknown)
        batch.quarantine([delivery for delivery in batch.former if id(delivery) in late], fences)
        return former.rows - len(unknown)

    async def _copy_bids(
        self, connection: Connection, batch: SortedBatch, meanwhile: Callable[[], Awaitable[None]] | None
    ) -> int:
        """Store the bids by COPY: all of them, or none if one is known already or its place is taken.

        COPY is faster, but cannot skip a row. If it fails on one, it is undone, and :meth:`_insert_bids` takes over.
        """
        if not (batch.bids and batch.bid_rows and self._expects_new):
            return 0
        self._expects_new = False
        taken = await connection.fetch(self._sql.find_events_among, *columns.place_ranges(batch.ends))
        if taken and not {(bid.item_id, *bid.version) for bid, _ in batch.bids}.isdisjoint(map(tuple, taken)):
            return 0
        # Not a nested transaction(): if the server hangs, leaving it would wait for the server once more.
        await connection.execute(self._sql.before_copy)
        try:
            if meanwhile is not None:
                await meanwhile()
            # A view, because the driver takes bytes for the name of a file.
            data = memoryview(copy_data(batch.bid_rows))
            told = await connection.copy_to_table("bids", columns=COPY_COLUMNS, source=data, format="binary")
        except asyncpg.UniqueViolationError:
            # A bid is known, or clashes.
            await connection.execute(self._sql.undo_copy)
            return 0
        if told != f"COPY {len(batch.bids)}":
            # Rows are made where messages arrive, apart from the bids. No cursor may pass a bid whose row is missing.
            logger.error("the rows of a batch are not those of its %d bids: %s", len(batch.bids), told)
            await connection.execute(self._sql.undo_copy)
            return 0
        self._expects_new = True
        return len(batch.bids)

    async def _insert_bids(self, connection: Connection, batch: SortedBatch) -> int:
        if not batch.bids:
            return 0
        rows = columns.bid_columns([bid for bid, _ in batch.bids])
        inserted = _count(await connection.execute(self._sql.insert_bids, *rows))
        self._expects_new = inserted == len(batch.bids)
        if inserted < len(batch.bids):
            clashes = await connection.fetch(self._sql.find_bid_clashes, *rows[:6])
            batch.put_aside([batch.bids[row["ordinal"] - 1] for row in clashes])
        return inserted

    async def _insert_events(self, connection: Connection, batch: SortedBatch) -> int:
        if not batch.events:
            return 0
        rows = columns.event_columns([event for event, _ in batch.events])
        inserted = _count(await connection.execute(self._sql.insert_events, *rows))
        if inserted < len(batch.events):
            clashes = await connection.fetch(self._sql.find_event_clashes, *rows[:5])
            batch.put_aside([batch.events[row["ordinal"] - 1] for row in clashes])
        return inserted

    async def _insert_sealed(self, connection: Connection, batch: SortedBatch) -> int:
        if not batch.sealed:
            return 0
        rows = columns.sealed_columns([row for row, _ in batch.sealed])
        inserted = _count(await connection.execute(self._sql.insert_sealed, *rows))
        if inserted < len(batch.sealed):
            clashes = await connection.fetch(self._sql.find_sealed_clashes, *rows)
            batch.put_facts_aside([batch.sealed[row["ordinal"] - 1] for row in clashes])
        return inserted

    async def _insert_rulings(self, connection: Connection, batch: SortedBatch) -> int:
        if not batch.rulings:
            return 0
        rows = columns.ruling_columns([row for row, _ in batch.rulings])
        inserted = _count(await connection.execute(self._sql.insert_rulings, *rows))
        if inserted < len(batch.rulings):
            clashes = await connection.fetch(self._sql.find_ruling_clashes, *rows)
            batch.put_facts_aside([batch.rulings[row["ordinal"] - 1] for row in clashes])
        return inserted

    async def _insert_acts(self, connection: Connection, batch: SortedBatch) -> int:
        if not batch.acts:
            return 0
        rows = columns.act_columns([row for row, _ in batch.acts])
        inserted = _count(await connection.execute(self._sql.insert_acts, *rows))
        if inserted < len(batch.acts):
            clashes = await connection.fetch(self._sql.find_act_clashes, *rows)
            batch.put_facts_aside([batch.acts[row["ordinal"] - 1] for row in clashes])
        return inserted

    async def _store_items(self, connection: Connection, batch: SortedBatch) -> None:
        created = batch.sound_creations()
        if created:
            await connection.execute(self._sql.store_terms, *columns.term_columns(created))
        ends = batch.sound_ends()
        if ends:
            await connection.execute(self._sql.store_states, *columns.state_columns(ends))

    async def _insert_dead_letters(
        self, connection: Connection, letters: Sequence[DeadLetter]
    ) -> list[tuple[str, str]]:
        if not letters:
            return []
        entries = [letter.delivery.entry for letter in letters]
        rows = await connection.fetch(
            self._sql.insert_dead_letters,
            [letter.reason for letter in letters],
            [_storable(letter.detail)[:_DETAIL_MAX] for letter in letters],
            [_storable(letter.delivery.subject) for letter in letters],
            [letter.delivery.stream_seq for letter in letters],
            [entry and entry.shard for entry in entries],
            [entry and entry.epoch for entry in entries],
            [entry and entry.n for entry in entries],
            [letter.data for letter in letters],
        )
        return [(row["reason"], f"{row['detail']} ({row['subject']}, #{row['stream_seq']})") for row in rows]

    async def _move_cursors(
        self, connection: Connection, watermarks: Mapping[str, Watermark], batch: SortedBatch
    ) -> dict[str, EntryId]:
        after = {}
        for shard, mark in watermarks.items():
            for epoch, entries in sorted(batch.entries.get(shard, {}).items()):
                mark = mark.add(epoch, entries)
            after[shard] = mark
        moved = [(shard, mark) for shard, mark in after.items() if mark != watermarks[shard]]
        if moved:
            await connection.execute(
                self._sql.move_cursors,
                [shard for shard, _ in moved],
                [mark.epoch for _, mark in moved],
                [mark.archived for _, mark in moved],
                # As text: a PostgreSQL array of arrays must be rectangular, and these differ in length.
                ["{" + ",".join(map(str, flattened(mark.ahead))) + "}" for _, mark in moved],
            )
        return {shard: EntryId(mark.epoch, mark.archived) for shard, mark in after.items()}

    async def positions(self) -> dict[str, EntryId]:
        """The archived cursor of every shard; epoch 0 where nothing was archived yet.

        Raises:
            ArchiveUnavailable: PostgreSQL cannot be read now.
        """
        async with self.connection() as connection:
            rows = await connection.fetch(self._sql.read_cursors)
        return {row["shard"]: EntryId(row["shard_epoch"], row["archived_n"]) for row in rows}

    async def knows(self, item_id: str) -> bool:
        """Whether anything of the item is archived.

        Raises:
            ArchiveUnavailable: PostgreSQL cannot be read now.
        """
        async with self.connection() as connection:
            return await connection.fetchval(self._sql.has_item, item_id) is True

    async def has_closed(self, item_id: str) -> bool:
        """Whether the item is closed, and all of it is archived: then Redis need not have it.

        Raises:
            ArchiveUnavailable: PostgreSQL cannot be read now.
        """
        async with self.connection() as connection:
            return bool(await closed_items(connection.fetch, [item_id]))

    async def dead_letters(self) -> DeadLetterCounts:
        """How many dead letters no retry has settled.

        Raises:
            ArchiveUnavailable: PostgreSQL cannot be read now.
        """
        async with self.connection() as connection:
            row = await connection.fetchrow(self._sql.count_dead_letters)
        return DeadLetterCounts(row["letters"], row["clashes"], row["former"])

    async def check_writable(self) -> None:
        """Return if PostgreSQL answers and takes writes.

        Raises:
            ArchiveUnavailable: it does not.
        """
        async with self.connection() as connection:
            if await connection.fetchval(self._sql.show_read_only) == "on":
                connection.terminate()  # the next one may lead to a server that takes writes
                raise ArchiveUnavailable("PostgreSQL is read-only")

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """A transaction whose COMMIT is on disk when it returns; driver errors are translated.

        Raises:
            ArchiveUnavailable, MessageRefused: nothing of it was stored, or, if COMMIT failed, that is unknown.
        """
        async with self.connection() as connection, connection.transaction():
            await connection.execute(self._sql.make_safe)
            yield connection

    @asynccontextmanager
    async def safely(self, connection: Connection) -> AsyncIterator[None]:
        """The same on a connection of :meth:`connection` that the caller holds. Driver errors are translated here.

        Raises:
            ArchiveUnavailable, MessageRefused: as above.
        """
        with translated(blames_data=True):
            async with connection.transaction():
                await connection.execute(self._sql.make_safe)
                yield

    @asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """A connection of the pool, without a transaction; driver errors are translated."""
        async with connection_of(self._pool, acquire_timeout_s=self._acquire_timeout_s, blames_data=True) as connection:
            yield connection


def _count(status: str) -> int:
    """The rows of a command tag such as ``INSERT 0 498``."""
    return int(status.rpartition(" ")[2])


def _storable(text: str) -> str:
    """The text without NUL and halves of surrogate pairs, which PostgreSQL refuses."""
    return text.replace("\0", "").encode(errors="replace").decode()


def _may_fill_gap(mark: tuple[str, Watermark], batch: SortedBatch) -> bool:
    """Whether later entries of the shard may have been stored before this batch's."""
    shard, watermark = mark
    return bool(watermark.ahead) or any(epoch < watermark.epoch for epoch in batch.entries.get(shard, {}))
