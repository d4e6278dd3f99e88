"""Recomputes an item's chain from PostgreSQL and names the first row that does not agree with it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import asyncpg

from archival_worker.chain.derived import disagreement
from archival_worker.chain.hashes import NOWHERE, START, Head, Row, Version, content_of, follows, next_hash
from archival_worker.chain.report import AuditImpossible, AuditReport, Finding
from archival_worker.chain.retired import audit_retired
from archival_worker.chain.sinks import ReadableSink
from archival_worker.store.database import Connection
from archival_worker.store.queries import load_chain_queries, load_retention_queries

_PAGE_ROWS: Final = 5_000
_TIMEOUT_S: Final = 60.0


_VOIDS: Final = {
    "valid": "no void struck it",
    "voided": "a void struck it",
    "repriced": "a void struck another bid, without which its price does not hold",
}


class Auditor:
    """Takes an item's rows in order and compares; stops at the first one that does not fit. Pure."""

    def __init__(self, item_id: str, chain: Head, exported: Mapping[Version, bytes]) -> None:
        """
        Args:
            chain: the end of the chain according to the table ``chains``.
            exported: the hashes in confirmed exports.
        """
        self._item_id = item_id
        self._chain = chain
        self._exported = exported
        self._head = START
        self._fits = 0
        self._waiting = 0
        self._last = NOWHERE
        self._finding: Finding | None = None
        self._created: list[Row] = []
        self._last_row: Row | None = None

    def add(self, rows: Iterable[Row]) -> bool:
        """Check the next rows, each with its stored hash. Returns whether to go on."""
        for row in rows:
            place = Version(row["epoch"], row["seq"])
            self._last_row = row
            if row["type"] == "created":
                self._created.append(row)
            if place > self._chain.place and row["hash"] is None:
                self._waiting += 1
            elif (reason := self._fault_of(place, row)) is not None:
                self._found(*reason)
                return False
        return True

    def _fault_of(self, place: Version, row: Row) -> tuple[Version, str | None, str] | None:
        """The place, type and reason of what does not fit; None if the row fits. It is then the end of the chain."""
        last = self._head.place
        if place == last:
            return place, row["type"], "a bid and another event hold the same place"
        if not follows(last, place):
            # If the item was rebuilt, nothing shows where the epoch before should have ended.
            missing = Version(last.epoch, last.seq + 1) if last != NOWHERE else Version(place.epoch, 0)
            return missing, None, f"it is missing; the next row is {row['type']} {place}"
        if row["hash"] is None:
            return place, row["type"], "it has no hash, but the chain goes past it: it was put in later"
        digest = next_hash(self._head.hash, content_of(row))
        if digest != row["hash"]:
            return place, row["type"], "its content is not what was hashed when it was archived"
        if place in self._exported and self._exported[place] != digest:
            return place, row["type"], "the chain up to it is not the one that was exported"
        if place > self._chain.place:
            return place, row["type"], f"it has a hash, but the chain is said to end at {self._chain.place}"
        self._head = Head(place, digest)
        self._fits += 1
        return None

    def _found(self, place: Version, kind: str | None, reason: str) -> None:
        if self._finding is None or place < self._last:
            self._finding = Finding(str(place), kind, reason)
            self._last = place

    def ended(self, orphan: Version | None) -> None:
        """Check the end of the chain, after all rows.

        Args:
            orphan: the first place that has a hash and no row.
        """
        head, place = self._head, self._head.place
        if orphan is not None:
            self._found(orphan, None, "its row is missing; its hash is there")
        if self._finding is None and place != self._chain.place:
            self._found(
                Version(max(place.epoch, 1), place.seq + 1),
                None,
                f"it is missing; the chain goes up to {self._chain.place}",
            )
        if self._finding is None and head.hash != self._chain.hash:
            self._found(place, None, "the hash at the end of the chain is not this one's")
        later = [each for each in self._exported if each > place]
        if self._finding is None and later:
            self._found(min(later), None, "it was exported and is not in the chain any more")

    def judged(self, place: Version, status: str, expected: str) -> None:
        """Note a bid whose status is not what the voids make it."""
        self._found(place, "bid", f"it is marked as {status}, and {_VOIDS[expected]}")

    def derived(self, item: Row | None) -> None:
        """Check the item's row, or None if there is none, after the chain was found sound."""
        if self._finding is not None or self._last_row is None:
            return
        last = Version(self._last_row["epoch"], self._last_row["seq"])
        if item is None:
            return self._found(last, "item", "the row of the item is missing")
        place = Version(item["epoch"], item["seq"])
        if place > last:
            missing = Version(last.epoch, last.seq + 1)
            return self._found(missing, None, f"it is missing; the item's row says that its log goes up to {place}")
        if place < last:
            return self._found(last, "item", f"the item's row is at {place}, and its log goes on")
        reason = disagreement(item, self._created, self._last_row)
        if reason is not None:
            self._found(last, "item", reason)

    def report(self) -> AuditReport:
        """What was found."""
        head, place = self._head, self._head.place
        is_empty = place == NOWHERE
        return AuditReport(
            item_id=self._item_id,
            fits=self._fits,
            up_to=None if is_empty else str(place),
            head=None if is_empty else head.hash.hex(),
            waiting=self._waiting,
            finding=self._finding,
        )


async def audit(
    postgres_url: str, item_id: str, *, sink: ReadableSink | None = None, page_rows: int = _PAGE_ROWS
) -> AuditReport:
    """Read one consistent state of the item and check all of it; of a retired item its export too.

    Args:
        sink: where exports are.

    Raises:
        AuditImpossible: PostgreSQL cannot be asked, or does not know the item, or the export of a retired item cannot
            be read.
    """
    try:
        connection = await asyncpg.connect(postgres_url, timeout=10, command_timeout=_TIMEOUT_S)
        try:
            async with connection.transaction(isolation="repeatable_read", readonly=True):
                retired = await connection.fetchrow(load_retention_queries().read_retired_item, item_id)
                if retired is None:
                    return await audit_on(connection, item_id, page_rows=page_rows)
                chain = await _chain_of(connection, item_id)
                item = await connection.fetchrow(load_chain_queries().read_item, item_id)
        finally:
            connection.terminate()
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, ValueError) as error:
        raise AuditImpossible(f"PostgreSQL: {type(error).__name__}: {error}") from error
    return await audit_retired(retired, chain or START, item, sink)


async def _chain_of(connection: Connection, item_id: str) -> Head | None:
    row = await connection.fetchrow(load_chain_queries().read_chain, item_id)
    return None if row is None else Head(Version(row["epoch"], row["seq"]), row["hash"])


async def audit_on(connection: Connection, item_id: str, *, page_rows: int = _PAGE_ROWS) -> AuditReport:
    """Like :func:`audit`, for an item that is not retired, in the caller's transaction, which must see one snapshot.

    Raises:
        AuditImpossible: PostgreSQL does not know the item.
        asyncpg.PostgresError: it cannot be asked.
    """
    sql = load_chain_queries()
    head = await _chain_of(connection, item_id)
    exported = {
        Version(row["epoch"], row["seq"]): row["head"] for row in await connection.fetch(sql.read_confirmed, item_id)
    }
    auditor = Auditor(item_id, head or START, exported)
    place, is_known = NOWHERE, head is not None or bool(exported)
    while rows := await connection.fetch(sql.read_rows, item_id, *place, page_rows):
        is_known = True
        place = Version(rows[-1]["epoch"], rows[-1]["seq"])
        if not auditor.add(rows):
            break
    if not is_known:
        raise AuditImpossible(f"the archive knows no item {item_id}")
    orphan = await connection.fetchrow(sql.find_orphan_hash, item_id)
    auditor.ended(None if orphan is None else Version(orphan["epoch"], orphan["seq"]))
    auditor.derived(await connection.fetchrow(sql.read_item, item_id))
    misjudged = await connection.fetchrow(sql.find_misjudged_bid, item_id)
    if misjudged is not None:
        auditor.judged(Version(misjudged["epoch"], misjudged["seq"]), misjudged["status"], misjudged["expected"])
    return auditor.report()
