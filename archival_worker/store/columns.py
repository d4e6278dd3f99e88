"""Events as columns: what the statements of ``queries.sql`` take, one list per column. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from shared.messages import AnyEvent, BidAccepted, EventBase, ItemCreated, encode_event, type_of
from shared.names import OutboxEntry
from shared.sealed import Act, Ruling, SealedFact

Columns = tuple[list[Any], ...]
E = TypeVar("E", bound=EventBase)


def bid_columns(bids: Sequence[BidAccepted]) -> Columns:
    """For ``insert_bids``; the first six are those of ``find_bid_clashes``."""
    return (
        [bid.item_id for bid in bids],
        [bid.epoch for bid in bids],
        [bid.seq for bid in bids],
        [bid.bid_id for bid in bids],
        [bid.user_id for bid in bids],
        [bid.amount for bid in bids],
        [bid.previous_bid for bid in bids],
        [bid.kind for bid in bids],
        [None if bid.highest_bidder_id == bid.user_id else bid.highest_bidder_id for bid in bids],
        [bid.ts_us for bid in bids],
    )


def places(events: Iterable[EventBase]) -> Columns:
    """The places of events in their items' logs, for ``apply_voids`` and ``apply_voids_to_late``."""
    found = [(event.item_id, event.epoch, event.seq) for event in events]
    return [item_id for item_id, _, _ in found], [epoch for _, epoch, _ in found], [seq for _, _, seq in found]


def place_ranges(events: Iterable[EventBase]) -> Columns:
    """For ``find_events_among``: per item and epoch, the lowest and the highest ``seq``."""
    ranges: dict[tuple[str, int], list[int]] = {}
    for event in events:
        known = ranges.setdefault((event.item_id, event.epoch), [event.seq, event.seq])
        if event.seq < known[0]:
            known[0] = event.seq
        elif event.seq > known[1]:
            known[1] = event.seq
    return (
        [item_id for item_id, _ in ranges],
        [epoch for _, epoch in ranges],
        [first for first, _ in ranges.values()],
        [last for _, last in ranges.values()],
    )


def event_columns(events: Sequence[AnyEvent]) -> Columns:
    """For ``insert_events``; the first five are those of ``find_event_clashes``."""
    return (
        [event.item_id for event in events],
        [event.epoch for event in events],
        [event.seq for event in events],
        [type_of(event) for event in events],
        [encode_event(event).decode() for event in events],
        [event.ts_us for event in events],
    )


@dataclass(frozen=True, slots=True)
class PlacedFact:
    """A sealed fact and where it belongs: it is the ``at``-th of an outbox entry, counted from 1."""

    item_id: str
    entry: OutboxEntry
    at: int
    fact: SealedFact


def sealed_columns(placed: Sequence[PlacedFact]) -> Columns:
    """For ``insert_sealed`` and ``find_sealed_clashes``."""
    facts = [row.fact for row in placed]
    return (
        [row.item_id for row in placed],
        [row.entry.epoch for row in placed],
        [row.entry.n for row in placed],
        [row.at for row in placed],
        [fact.seq for fact in facts],
        [fact.leader_id for fact in facts],
        [fact.leader_max for fact in facts],
        [fact.runner_up for fact in facts],
        [fact.user_id for fact in facts],
        [fact.bid_id for fact in facts],
        [fact.amount for fact in facts],
        [fact.max_amount for fact in facts],
        [fact.key for fact in facts],
        [fact.verdict for fact in facts],
        [fact.ts_us for fact in facts],
    )


@dataclass(frozen=True, slots=True)
class PlacedRuling:
    """A ruling and where it belongs: it is the ``at``-th of an outbox entry, counted from 1."""

    entry: OutboxEntry
    at: int
    ruling: Ruling


def _places(placed: Sequence[PlacedRuling] | Sequence[PlacedAct]) -> Columns:
    return (
        [row.entry.shard for row in placed],
        [row.entry.epoch for row in placed],
        [row.entry.n for row in placed],
        [row.at for row in placed],
    )


def ruling_columns(placed: Sequence[PlacedRuling]) -> Columns:
    """For ``insert_rulings`` and ``find_ruling_clashes``."""
    rulings = [row.ruling for row in placed]
    return (
        *_places(placed),
        [ruling.item_id for ruling in rulings],
        [ruling.seller_id for ruling in rulings],
        [ruling.user_id for ruling in rulings],
        [ruling.ruling for ruling in rulings],
        [ruling.approved for ruling in rulings],
        [ruling.blocked for ruling in rulings],
        [ruling.limit for ruling in rulings],
        [ruling.currency for ruling in rulings],
        [ruling.reason for ruling in rulings],
        [ruling.by for ruling in rulings],
        [ruling.ts_us for ruling in rulings],
    )


@dataclass(frozen=True, slots=True)
class PlacedAct:
    """An act and where it belongs: it is the ``at``-th of an outbox entry, counted from 1."""

    entry: OutboxEntry
    at: int
    act: Act


def act_columns(placed: Sequence[PlacedAct]) -> Columns:
    """For ``insert_acts`` and ``find_act_clashes``."""
    acts = [row.act for row in placed]
    return (
        *_places(placed),
        [act.act for act in acts],
        [act.target for act in acts],
        [act.reason for act in acts],
        [act.by for act in acts],
        [act.ts_us for act in acts],
    )


def term_columns(created: Iterable[ItemCreated]) -> Columns:
    """For ``store_terms``: one row per item, of its newest ``created`` event."""
    rows = [
        (
            event.item_id,
            event.name,
            event.description,
            " ".join(event.image_urls or ()),
            event.seller_id,
            event.currency,
            event.start_price,
            event.reserve_price,
            event.buy_now_price,
            event.increment_kind,
            event.increment_value,
            event.increment_steps,
            event.soft_close,
            event.auto_opened,
            event.start_us,
            event.end_us,
            event.ts_us,
            event.epoch,
            event.seq,
            event.current_bid,
            event.min_next_bid,
            event.status,
            event.reserve_met,
            event.approval_required,
        )
        for event in newest_per_item(created)
    ]
    return tuple(list(column) for column in zip(*rows, strict=True))


def state_columns(events: Iterable[EventBase]) -> Columns:
    """For ``store_states``: one row per item, of its newest event."""
    rows = [
        (
            event.item_id,
            event.epoch,
            event.seq,
            event.current_bid,
            event.highest_bidder_id,
            event.bid_count,
            event.min_next_bid,
            event.status,
            event.reserve_met,
            event.end_us,
            event.ts_us,
            event.currency,
        )
        for event in newest_per_item(events)
    ]
    return tuple(list(column) for column in zip(*rows, strict=True))


def newest_per_item(events: Iterable[E]) -> list[E]:
    """The event of the highest ``(epoch, seq)`` of each item."""
    newest: dict[str, E] = {}
    for event in events:
        known = newest.get(event.item_id)
        if known is None or known.version < event.version:
            newest[event.item_id] = event
    return list(newest.values())
