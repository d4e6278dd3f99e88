"""One message of the stream: an outbox entry with its events and sealed facts, or a poison with the reason. Pure."""

from __future__ import annotations

from typing import Final

import msgspec

from archival_worker.store.copy_rows import copy_rows
from shared import names
from shared.messages import DecodeError
from shared.names import OutboxEntry
from shared.redis_layout.rulings import HOUSES
from shared.sealed import SealedBatch, decode_sealed_batch
from shared.streams.ack_subject import stream_sequence

_FAULT_TEXT_MAX: Final = 500

_SHARDS: Final = frozenset(names.SHARDS)
_EPOCH_MAX: Final = 2**31 - 1
_N_MAX: Final = 2**53 - 1


class Delivery(msgspec.Struct, frozen=True):
    """A message that JetStream delivered.

    Attributes:
        subject: where it was published.
        data: as received.
        reply: the subject that takes its acknowledgement.
        entry: the outbox entry that it carries; None if unknown, so that no watermark can count it.
        batch: its events, sealed facts, rulings and acts; None for a poison.
        fault: why it is a poison, else None.
        traces: names the sampled bids whose events it has; empty where it has none. Nothing of it is stored.
        bid_rows: its bids as :func:`copy_rows` makes them, None where it cannot. Made on arrival, while PostgreSQL
            works on the batch before.
    """

    subject: str
    data: bytes
    reply: str
    entry: OutboxEntry | None
    batch: SealedBatch | None
    fault: str | None = None
    traces: str = ""
    bid_rows: bytes | None = b""

    @property
    def rows(self) -> int:
        """How many rows it needs, at least 1."""
        batch = self.batch
        if batch is None:
            return 1
        return max(1, len(batch.events) + len(batch.sealed) + len(batch.rulings) + len(batch.acts))

    @property
    def stream_seq(self) -> int:
        """Its sequence number in the stream, 0 if the acknowledgement subject does not have it."""
        return stream_sequence(self.reply)

    def as_poison(self, fault: str) -> Delivery:
        """The same message as a poison. It keeps its place in the outbox: a poison must not hold up the watermark."""
        return msgspec.structs.replace(self, batch=None, fault=fault[:_FAULT_TEXT_MAX], bid_rows=b"")


def read_delivery(subject: str, data: bytes, reply: str, message_id: str | None, traces: str = "") -> Delivery:
    """Decode and check one message; never raises.

    Args:
        subject, data, reply: as received.
        message_id: its Nats-Msg-Id header. It names the outbox entry of a message whose body cannot be read.
        traces: its header of traces.
    """
    try:
        batch = decode_sealed_batch(data)
    except (DecodeError, UnicodeDecodeError, RecursionError) as error:
        return _poison(subject, data, reply, _entry_of(message_id), f"undecodable: {error}")
    entry = OutboxEntry(batch.shard, batch.shard_epoch, batch.n)
    fault = _fault_of(batch)
    if fault is not None:
        counted = entry if _is_entry(entry) else _entry_of(message_id)
        return _poison(subject, data, reply, counted, fault)
    return Delivery(subject, data, reply, entry, batch, None, traces, copy_rows(batch.item_id, batch.events))


def _poison(subject: str, data: bytes, reply: str, entry: OutboxEntry | None, fault: str) -> Delivery:
    return Delivery(subject, data, reply, entry, None, fault[:_FAULT_TEXT_MAX])


def _is_entry(entry: OutboxEntry) -> bool:
    return entry.shard in _SHARDS and 0 < entry.epoch <= _EPOCH_MAX and 0 < entry.n <= _N_MAX


def _entry_of(message_id: str | None) -> OutboxEntry | None:
    """The entry that a Nats-Msg-Id names, or None if the id is not one of ours."""
    entry = names.entry_of_message_id(message_id)
    return entry if entry is not None and _is_entry(entry) else None


def _fault_of(batch: SealedBatch) -> str | None:
    """What breaks the contract in a well-formed message (its place in the outbox, its item, its order), or None."""
    item_id = batch.item_id
    if item_id in HOUSES:
        if batch.events or batch.sealed or any(ruling.item_id is not None for ruling in batch.rulings):
            return f"{item_id} is no item, and may have rulings for all items and acts alone"
    elif not names.is_item_id(item_id):
        return f"item id {item_id[:80]!r} is malformed"
    elif batch.acts:
        return f"an act on the platform in a message of item {item_id}"
    elif any(ruling.item_id != item_id for ruling in batch.rulings):
        return f"a ruling on something else in a message of item {item_id}"
    if batch.shard != names.shard_of(item_id):
        return f"item {item_id} is not of shard {batch.shard[:8]!r}"
    if not _is_entry(OutboxEntry(batch.shard, batch.shard_epoch, batch.n)):
        return f"no outbox entry {batch.shard_epoch}:{batch.n}"
    events = batch.events
    if not events:
        return None
    epoch, seq = events[0].version
    for at, event in enumerate(events, start=seq):
        if event.item_id != item_id:
            return f"an event of item {event.item_id[:80]!r} in a message of item {item_id}"
        if event.seq != at or event.epoch != epoch:
            return f"event {event.epoch}:{event.seq} where {epoch}:{at} was due"
    return None
