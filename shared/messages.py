"""The events: a Lua script writes them to the outbox, the relay publishes them, consumers read them.

Amounts are integer minor units and times integer microseconds since the Unix epoch (UTC); only the edges (HTTP, the
live feed) convert them to decimal amounts and RFC 3339. Every event has the item's ``epoch`` and ``seq`` and the full
new public state, so a consumer keeps the highest ``(epoch, seq)`` and drops the rest: duplicates and reordering are
harmless, and a gap in ``seq`` is visible.

No event has a hidden maximum. The message has it in a second list, for the archive alone (:mod:`shared.sealed`), which
the decoder here skips.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from shared import names


class EventBase(msgspec.Struct, kw_only=True, frozen=True, tag_field="type", gc=False):
    """The item's new public state after one sequenced event.

    ``seq`` counts from 0 (``created``) without a gap within an ``epoch``; ``epoch`` starts at 1 and rises when the
    item is rebuilt after a loss. ``current_bid`` is the start price until the first bid. ``min_next_bid`` is the least
    next bid.
    """

    item_id: str
    epoch: int
    seq: int
    ts_us: int
    current_bid: int
    highest_bidder_id: str | None
    bid_count: int
    min_next_bid: int
    status: str
    end_us: int | None
    reserve_met: bool
    currency: str

    @property
    def event_id(self) -> str:
        """``<item>:<epoch>:<seq>``."""
        return names.event_id(self.item_id, self.epoch, self.seq)

    @property
    def version(self) -> tuple[int, int]:
        """``(epoch, seq)``, by which consumers compare events."""
        return (self.epoch, self.seq)


class ItemCreated(EventBase, kw_only=True, frozen=True, tag="created", gc=False):
    """Seq 0: the item and its terms. ``reserve_price`` is for the archive alone and must never reach a viewer."""

    name: str
    description: str
    seller_id: str | None
    start_price: int
    reserve_price: int | None
    buy_now_price: int | None
    increment_kind: Literal["flat", "percent", "ladder"]
    increment_value: int | None
    increment_steps: str
    start_us: int
    soft_close: str
    auto_opened: bool


class BidAccepted(EventBase, kw_only=True, frozen=True, tag="bid", gc=False):
    """An accepted bid. ``amount`` is the visible price that it set, ``previous_bid`` the price before it.

    ``kind``: ``bid`` was placed by ``user_id``; ``proxy`` is an automatic bid from the leader's maximum; ``buy_now``
    took the item at its buy-now price.
    """

    bid_id: str
    user_id: str
    amount: int
    previous_bid: int
    kind: Literal["bid", "proxy", "buy_now"]


class AuctionExtended(EventBase, kw_only=True, frozen=True, tag="extended", gc=False):
    """The soft close moved the end; sequenced right after the bid that caused it."""

    previous_end_us: int
    original_end_us: int
    extensions: int


class AuctionOpened(EventBase, kw_only=True, frozen=True, tag="opened", gc=False):
    """A scheduled item reached its start time."""


class AuctionPaused(EventBase, kw_only=True, frozen=True, tag="paused", gc=False):
    """An operator stopped the bidding; the remaining time is kept."""

    reason: str
    by: str | None


class AuctionResumed(EventBase, kw_only=True, frozen=True, tag="resumed", gc=False):
    """The bidding goes on; the end moved by the length of the pause."""

    reason: str
    by: str | None


class AuctionClosed(EventBase, kw_only=True, frozen=True, tag="closed", gc=False):
    """The last event of an item: ``status`` is ``sold`` or ``unsold``."""

    winner_id: str | None


class AuctionCancelled(EventBase, kw_only=True, frozen=True, tag="cancelled", gc=False):
    """The last event of an item that was withdrawn."""

    reason: str
    by: str | None


class BidVoided(EventBase, kw_only=True, frozen=True, tag="voided", gc=False):
    """An operator struck a bid; the only event that may lower the price. :func:`shared.domain.voiding.fate_of` tells
    what becomes of other rows.

    If no row has the new price, ``current_bid`` is the highest row that still stands, and the next event is the
    leader's automatic bid, made anew. ``offered_to``: after the close, who would have won without the struck bid; that
    bidder is asked, never promoted.

    Old events lack the fields with a default. ``bidder_id``: whose bid it was. ``amount``: the price that it had set,
    None for a raise. ``automatic_until``: the bidder's automatic bids between ``voided_seq`` and this seq are struck
    too. ``previous_bid``, ``previous_bid_count``: before the void.
    """

    bid_id: str
    voided_seq: int
    offered_to: str | None
    reason: str
    by: str | None
    bidder_id: str | None = None
    amount: int | None = None
    automatic_until: int | None = None
    previous_bid: int | None = None
    previous_bid_count: int | None = None


Event = (
    ItemCreated
    | BidAccepted
    | AuctionExtended
    | AuctionOpened
    | AuctionPaused
    | AuctionResumed
    | AuctionClosed
    | AuctionCancelled
    | BidVoided
)


class EventBatch(msgspec.Struct, kw_only=True, frozen=True):
    """One JetStream message: the events of one outbox entry, all of one item, with consecutive ``seq``.

    ``events`` is empty if the entry has only sealed facts: a maximum was raised.
    ``n`` counts the entries of a shard from 1 without a gap within ``shard_epoch``.
    """

    v: Literal[1]
    shard: str
    shard_epoch: int
    n: int
    item_id: str
    events: list[Event]


_batch_decoder = msgspec.json.Decoder(EventBatch)
_event_decoder: msgspec.json.Decoder[Event] = msgspec.json.Decoder(Event)

DecodeError = msgspec.DecodeError
"""Raised by the decoders for anything that is not a well-formed message of this version."""


MESSAGE_START: Final = b'{"v":'
"""Every message of :func:`frame_batch` begins with this, and no event does."""


def frame_batch(
    shard: str, shard_epoch: int, entry: int, item_id: str, events_json: bytes, sealed_json: bytes | None = None
) -> bytes:
    """The message of one outbox entry, built around the JSON arrays of the Lua script, which are not decoded."""
    head = f'{{"v":1,"shard":"{shard}","shard_epoch":{shard_epoch},"n":{entry},"item_id":"{item_id}","events":'
    if sealed_json is None:
        return b"%b%b}" % (head.encode(), events_json)
    return b'%b%b,"sealed":%b}' % (head.encode(), events_json, sealed_json)


def decode_batch(data: bytes) -> EventBatch:
    """Decode one JetStream message.

    Raises:
        DecodeError: the data is not a message of this version (a poison message).
    """
    return _batch_decoder.decode(data)


def decode_event(data: bytes) -> Event:
    """Decode one event, as kept in an item's list of recent events.

    Raises:
        DecodeError: the data is not an event.
    """
    return _event_decoder.decode(data)


def encode_event(event: Event) -> bytes:
    """One event as JSON, the inverse of :func:`decode_event`."""
    encoded: bytes = msgspec.json.encode(event)
    return encoded
