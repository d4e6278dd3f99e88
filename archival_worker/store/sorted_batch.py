"""A batch of messages, sorted by the table that each part goes to. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

from archival_worker.consume.deliveries import Delivery
from archival_worker.store.columns import PlacedAct, PlacedFact, PlacedRuling
from archival_worker.store.retired import Spans, has_all
from shared.messages import AnyEvent, BidAccepted, BidVoided, ItemCreated, UnknownEvent, encode_event, type_of

NO_FENCES: Final[Mapping[str, int]] = MappingProxyType({})
NO_RETIRED: Final[Mapping[str, Spans]] = MappingProxyType({})

_KINDS: Final = MappingProxyType({PlacedFact: "sealed fact", PlacedRuling: "ruling", PlacedAct: "act"})


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """What could not be stored in its own table. ``reason``: ``poison``, ``clash``, ``former_epoch`` or
    ``retired``."""

    reason: str
    detail: str
    delivery: Delivery
    data: bytes


@dataclass(slots=True)
class SortedBatch:
    """What is to be stored.

    Attributes:
        entries: the numbers of outbox entries that count for the cursors, by shard and epoch.
        bid_rows: all of ``bids`` as rows of a COPY; None where some cannot be such a row.
        ends: the first and the last event of each message that is to be stored. Those between them are of the same item
            and epoch, in order.
        clashed: the ``id()`` of events and facts whose place is taken.
        former: messages of an epoch that is over, which are in none of the other lists.
        known: events and facts of retired items, which are in none of the other lists: the items' exports have them.
        unknown: types that this version does not know, one for each such event.
    """

    entries: dict[str, dict[int, list[int]]] = field(default_factory=dict)
    bids: list[tuple[BidAccepted, Delivery]] = field(default_factory=list)
    bid_rows: list[bytes] | None = field(default_factory=list)
    ends: list[AnyEvent] = field(default_factory=list)
    events: list[tuple[AnyEvent, Delivery]] = field(default_factory=list)
    sealed: list[tuple[PlacedFact, Delivery]] = field(default_factory=list)
    rulings: list[tuple[PlacedRuling, Delivery]] = field(default_factory=list)
    acts: list[tuple[PlacedAct, Delivery]] = field(default_factory=list)
    dead_letters: list[DeadLetter] = field(default_factory=list)
    clashed: set[int] = field(default_factory=set)
    former: list[Delivery] = field(default_factory=list)
    known: int = 0
    unknown: list[str] = field(default_factory=list)

    @classmethod
    def of(
        cls,
        deliveries: Sequence[Delivery],
        fences: Mapping[str, int] = NO_FENCES,
        retired: Mapping[str, Spans] = NO_RETIRED,
    ) -> SortedBatch:
        """The batch of these messages; poisons become dead letters, and so does what retired items never had.

        ``fences``: of each shard that was rebuilt its newest epoch. ``retired``: items, each with the events it had.
        """
        batch = cls()
        for delivery in deliveries:
            entry = delivery.entry
            is_former = entry is not None and entry.epoch < fences.get(entry.shard, 0)
            spans = retired.get(delivery.batch.item_id) if delivery.batch is not None else None
            if is_former and delivery.batch is not None:
                # Rulings are in no export, so PostgreSQL must tell whether they are stored.
                if spans is not None and not delivery.batch.rulings and has_all(spans, delivery):
                    batch.known += delivery.rows
                else:
                    batch.former.append(delivery)
                continue
            if entry is not None and not is_former:
                batch.entries.setdefault(entry.shard, {}).setdefault(entry.epoch, []).append(entry.n)
            if delivery.batch is None or entry is None:
                fault = delivery.fault or "unknown"
                batch.dead_letters.append(DeadLetter("poison", fault, delivery, delivery.data))
                continue
            for at, ruling in enumerate(delivery.batch.rulings, start=1):
                batch.rulings.append((PlacedRuling(entry, at, ruling), delivery))
            for at, act in enumerate(delivery.batch.acts, start=1):
                batch.acts.append((PlacedAct(entry, at, act), delivery))
            if spans is not None:
                batch.put_retired_aside(delivery, spans)
                continue
            events = delivery.batch.events
            for event in events:
                if type(event) is BidAccepted:
                    batch.bids.append((event, delivery))
                else:
                    batch.events.append((event, delivery))
                    if type(event) is UnknownEvent:
                        batch.unknown.append(event.type_name)
            batch.ends += (events[0], events[-1]) if len(events) > 1 else events
            if delivery.bid_rows is None:
                batch.bid_rows = None
            elif batch.bid_rows is not None:
                batch.bid_rows.append(delivery.bid_rows)
            item_id = delivery.batch.item_id
            for at, fact in enumerate(delivery.batch.sealed, start=1):
                batch.sealed.append((PlacedFact(item_id, entry, at, fact), delivery))
        return batch

    @property
    def rows(self) -> int:
        """Rows to be stored, dead letters not counted."""
        return len(self.bids) + len(self.events) + len(self.sealed) + len(self.rulings) + len(self.acts)

    @property
    def clashes(self) -> int:
        """Rows that are not stored because their place is taken."""
        return len(self.clashed)

    @property
    def voids(self) -> list[BidVoided]:
        """Events that strike a bid."""
        return [event for event, _ in self.events if type(event) is BidVoided]

    def put_aside(self, clashes: Sequence[tuple[AnyEvent, Delivery]]) -> None:
        """Make dead letters of these: something else is stored in their place. They do not count for items' states."""
        for event, delivery in clashes:
            self.clashed.add(id(event))
            detail = f"{type_of(event)} {event.event_id}: its place in the archive is taken by another event"
            if type(event) is BidAccepted:
                detail = f"bid {event.bid_id} as {event.event_id}: place or bid id is taken by another bid or event"
            self.dead_letters.append(DeadLetter("clash", detail, delivery, encode_event(event)))

    def put_facts_aside(self, clashes: Sequence[tuple[PlacedFact | PlacedRuling | PlacedAct, Delivery]]) -> None:
        """The same for sealed facts, rulings and acts. The letter is the whole message; no text that people see
        may have what is sealed."""
        for row, delivery in clashes:
            self.clashed.add(id(row))
            kind = _KINDS[type(row)]
            detail = f"{kind} {row.at} of entry {row.entry.epoch}:{row.entry.n}: its place is taken by another one"
            self.dead_letters.append(DeadLetter("clash", detail, delivery, delivery.data))

    def put_retired_aside(self, delivery: Delivery, spans: Spans) -> None:
        """Store nothing of a retired item. What it never had becomes a dead letter, such as a void of a Redis that was
        restored from an old copy."""
        assert delivery.batch is not None
        if has_all(spans, delivery):
            self.known += len(delivery.batch.events) + len(delivery.batch.sealed)
            return
        detail = f"item {delivery.batch.item_id} is retired: its log is in its export, which lacks this message"
        self.dead_letters.append(DeadLetter("retired", detail, delivery, delivery.data))

    def quarantine(self, deliveries: Sequence[Delivery], fences: Mapping[str, int]) -> None:
        """Make dead letters of whole messages of an epoch that is over, if something of them is not stored."""
        for delivery in deliveries:
            entry = delivery.entry
            assert entry is not None
            detail = (
                f"entry {entry.epoch}:{entry.n} of shard {entry.shard} came after the shard was rebuilt under epoch "
                f"{fences[entry.shard]}; nobody is shown it, and no bid in it counts"
            )
            self.dead_letters.append(DeadLetter("former_epoch", detail, delivery, delivery.data))

    def sound_ends(self) -> Sequence[AnyEvent]:
        """Events that did not clash, among them the newest of each item."""
        if not self.clashed:
            return self.ends
        events = [event for event, _ in self.bids] + [event for event, _ in self.events]
        return [event for event in events if id(event) not in self.clashed]

    def sound_creations(self) -> list[ItemCreated]:
        """Those that create items and did not clash."""
        return [event for event, _ in self.events if type(event) is ItemCreated and id(event) not in self.clashed]
