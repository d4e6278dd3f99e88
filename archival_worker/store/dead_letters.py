"""Lists the dead letters, and retries those whose cause is mended.

A retry is handled like any message. What can be stored by now is stored, in the place that it always had; what cannot
stays a dead letter. A message of an epoch that is over, or of a retired item, stays out for ever; its retry records
that somebody has looked at it. The letter itself always stays, with the outcome of the retry.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, Literal

import msgspec

from archival_worker.consume.deliveries import Delivery, read_delivery
from archival_worker.errors import LetterUnknown, MessageRefused
from archival_worker.store.acts import UNNAMED, Actor, record
from archival_worker.store.archive import Archive
from archival_worker.store.database import Connection
from archival_worker.store.queries import Queries, load_queries
from shared import names
from shared.messages import MESSAGE_START, frame_batch
from shared.names import OutboxEntry

RetryOutcome = Literal["stored", "poison", "clash", "former_epoch", "retired"]

_TEXTS: Final[dict[RetryOutcome, str]] = {
    "stored": "stored",
    "poison": "still cannot be read or stored",
    "clash": "its place in the archive is still taken by another event",
    "former_epoch": "its epoch is over: the item was rebuilt without it, so it stays out, and counts as looked at",
    "retired": "its item is retired, and its export lacks it: it stays out, and counts as looked at",
}
_STAYS_OUT: Final = ("former_epoch", "retired")


@dataclass(frozen=True, slots=True)
class Letter:
    """One row to show. ``item_id`` and ``n`` are None if the message does not have them."""

    id: int
    reason: str
    subject: str
    item_id: str | None
    n: int | None
    at: datetime
    detail: str
    retried_at: datetime | None
    outcome: RetryOutcome | None


@dataclass(frozen=True, slots=True)
class Retried:
    """The outcome of a retry; ``text`` is for people."""

    id: int
    outcome: RetryOutcome
    text: str


class DeadLetters:
    """Reads and retries; atomic per letter, and harmless if repeated."""

    def __init__(self, archive: Archive, *, queries: Queries | None = None) -> None:
        self._archive = archive
        self._sql = queries or load_queries()

    async def list(self, *, with_stored: bool = False, only: int | None = None) -> Sequence[Letter]:
        """The letters, oldest first; without ``with_stored`` only those that no retry has settled.

        Raises:
            ArchiveUnavailable: PostgreSQL cannot be read now.
        """
        async with self._archive.connection() as connection:
            rows = await connection.fetch(self._sql.list_dead_letters, with_stored, only)
        return [Letter(item_id=_item_of(row["subject"]), **dict(row)) for row in rows]

    async def retry(self, letter_id: int, actor: Actor = UNNAMED) -> Retried:
        """Store what the letter holds, as if it came now, and record who wanted that.

        Raises:
            LetterUnknown: there is no such letter.
            ArchiveUnavailable: nothing was changed, or that is unknown; try again.
        """
        try:
            async with self._archive.transaction() as connection:
                row = await connection.fetchrow(self._sql.lock_dead_letter, letter_id)
                if row is None:
                    raise LetterUnknown(letter_id)
                if row["outcome"] == "stored":
                    return Retried(letter_id, "stored", "had been stored by an earlier retry")
                delivery = read_letter(row)
                outcome: RetryOutcome = "poison"
                if delivery.entry is not None and await self._archive.is_former(connection, delivery.entry):
                    outcome = "former_epoch"
                elif await self._archive.is_late(connection, delivery):
                    outcome = "retired"
                elif delivery.batch is not None:
                    stored = await self._archive.write(connection, [delivery], may_be_late=True)
                    # If one event of a poison clashes, the rest is stored, and the event becomes a letter of its own.
                    outcome = "clash" if stored.clashes and row["reason"] == "clash" else "stored"
                await self._mark(connection, letter_id, outcome, actor)
            text = _TEXTS[outcome] if outcome in _STAYS_OUT else delivery.fault or _TEXTS[outcome]
            return Retried(letter_id, outcome, text)
        except MessageRefused as error:
            async with self._archive.transaction() as connection:
                await self._mark(connection, letter_id, "poison", actor)
            return Retried(letter_id, "poison", f"PostgreSQL still refuses it: {error}")

    async def _mark(self, connection: Connection, letter_id: int, outcome: RetryOutcome, actor: Actor) -> None:
        await connection.execute(self._sql.mark_dead_letter, letter_id, outcome)
        await record(connection, "retry_dead_letter", str(letter_id), actor)


def read_letter(row: Any) -> Delivery:
    """The message that a row of ``lock_dead_letter`` keeps, as it would be delivered. Pure.

    A `clash` letter keeps one event, which becomes a message again. If a sealed fact clashes, it keeps the message.
    """
    shard, epoch, n = row["shard"], row["shard_epoch"], row["n"]
    entry = OutboxEntry(shard, epoch, n) if shard is not None else None
    data: bytes = row["data"]
    if row["reason"] == "clash" and entry is not None and not data.startswith(MESSAGE_START):
        data = frame_batch(shard, epoch, n, names.item_of_subject(row["subject"]), b"[%b]" % data)
    message_id = names.message_id(*entry) if entry is not None else None
    delivery = read_delivery(row["subject"], data, "", message_id)
    # If it clashes again, the bytes of the event show that it is the same letter, and it is not stored twice.
    return msgspec.structs.replace(delivery, entry=entry)


def _item_of(subject: str) -> str | None:
    item_id = names.item_of_subject(subject)
    return item_id if names.is_item_id(item_id) else None
