"""The events: a Lua script writes them to the outbox, the relay publishes them, consumers read them.

Amounts are integer minor units and times integer microseconds since the Unix epoch (UTC); only the edges (HTTP, the
live feed) convert them to decimal amounts and RFC 3339. Every event has the item's ``epoch`` and ``seq`` and the full
new public state, so a consumer keeps the highest ``(epoch, seq)`` and drops the rest: duplicates and reordering are
harmless, and a gap in ``seq`` is visible.

No event has a hidden maximum. The message has it in a second list, for the archive alone (:mod:`shared.sealed`), which
the decoder here skips.
"""

from __future__ import annotations

from typing import Any, Final, Literal, TypeVar, get_args

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
    """Seq 0: the item and its terms. ``reserve_price`` is for the archive alone and must never reach a viewer.

    ``image_urls``: addresses of its images, in order; an event of an item without images lacks them, as all did before
    there were images. So what is archived of such an event stays what it was.
    ``approval_required``: old events lack it.
    """

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
    approval_required: bool = False
    image_urls: tuple[str, ...] | msgspec.UnsetType = msgspec.UNSET


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


class EndMoved(EventBase, kw_only=True, frozen=True, tag="end_moved", gc=False):
    """The item's seller or an operator moved its end; viewers are shown ``extended`` with the reason.

    It is a type of its own and no ``extended``, which counts late bids, and whose new members an older archiver would
    drop (decision 0071). ``request``: :func:`shared.redis_layout.end_moves.move_request`, empty where there was no key.
    """

    previous_end_us: int
    original_end_us: int
    extensions: int
    reason: str
    by: str | None
    request: str = ""


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


class UnknownEvent(EventBase, kw_only=True, frozen=True, tag="\0unknown", gc=False):
    """An event of a type that a newer version writes and this one does not know.

    Its public state is read like that of any event, so whoever keeps the newest state loses nothing. ``type_name`` is
    its type on the wire, ``body`` the whole event as it was written.
    """

    type_name: str
    body: bytes


Event = (
    ItemCreated
    | BidAccepted
    | AuctionExtended
    | EndMoved
    | AuctionOpened
    | AuctionPaused
    | AuctionResumed
    | AuctionClosed
    | AuctionCancelled
    | BidVoided
)
AnyEvent = Event | UnknownEvent
"""What the archive keeps; everybody else works with the events that they know."""


class EventBatch(msgspec.Struct, kw_only=True, frozen=True):
    """One JetStream message: the events of one outbox entry, all of one item, with consecutive ``seq``.

    ``events`` is empty if the entry has only sealed facts (a maximum was raised) or rulings. Where a ruling is on no
    item, ``item_id`` is no item's: :func:`shared.redis_layout.rulings.house_of`.
    ``n`` counts the entries of a shard from 1 without a gap within ``shard_epoch``.
    """

    v: Literal[1]
    shard: str
    shard_epoch: int
    n: int
    item_id: str
    events: list[Event]


batch_decoder: Final = msgspec.json.Decoder(EventBatch)
"""The decoder for :func:`decode_any_batch` that skips what is sealed in a message."""
_event_decoder: msgspec.json.Decoder[Event] = msgspec.json.Decoder(Event)


class _Typed(msgspec.Struct):
    type: str


_type_decoder = msgspec.json.Decoder(_Typed)
KNOWN_TYPES: Final = frozenset(str(kind.__struct_config__.tag) for kind in get_args(Event))
BatchT = TypeVar("BatchT", bound=EventBatch)

DecodeError = msgspec.DecodeError
"""Raised by the decoders for anything that is not a well-formed message of this version."""


MESSAGE_START: Final = b'{"v":'
"""Every message of :func:`frame_batch` begins with this, and no event does."""


def frame_batch(
    shard: str,
    shard_epoch: int,
    entry: int,
    item_id: str,
    events_json: bytes,
    sealed_json: bytes | None = None,
    rulings_json: bytes | None = None,
    acts_json: bytes | None = None,
) -> bytes:
    """The message of one outbox entry, built around the JSON arrays of the Lua scripts, which are not decoded."""
    head = f'{{"v":1,"shard":"{shard}","shard_epoch":{shard_epoch},"n":{entry},"item_id":"{item_id}","events":'
    if acts_json is not None:
        return b'%b%b,"acts":%b}' % (head.encode(), events_json, acts_json)
    if rulings_json is not None:
        return b'%b%b,"sealed":%b,"rulings":%b}' % (head.encode(), events_json, sealed_json or b"[]", rulings_json)
    if sealed_json is None:
        return b"%b%b}" % (head.encode(), events_json)
    return b'%b%b,"sealed":%b}' % (head.encode(), events_json, sealed_json)


def decode_batch(data: bytes) -> EventBatch:
    """Decode one JetStream message, of which every event must be of a known type.

    Raises:
        DecodeError: the data is not a message of this version (a poison message), or has an event of an unknown type.
    """
    return batch_decoder.decode(data)


def decode_event(data: bytes) -> Event:
    """Decode one event of a known type, as kept in an item's list of recent events.

    Raises:
        DecodeError: the data is not an event, or one of an unknown type.
    """
    return _event_decoder.decode(data)


def decode_any_event(data: bytes) -> AnyEvent:
    """The same, and an :class:`UnknownEvent` where the type is unknown.

    Raises:
        DecodeError: the data is not an event, or one of a known type whose members are not what they should be.
    """
    try:
        return _event_decoder.decode(data)
    except msgspec.ValidationError:
        if _type_decoder.decode(data).type in KNOWN_TYPES:
            raise
    return _unknown(data)


def decode_any_batch(decoder: msgspec.json.Decoder[BatchT], data: bytes) -> BatchT:
    """Decode one JetStream message; events of unknown types become :class:`UnknownEvent`.

    What is known costs nothing more: a message is looked at again only where ``decoder`` refuses it.

    Raises:
        DecodeError: as :func:`decode_any_event`, or the rest is not a message of this version.
    """
    try:
        return decoder.decode(data)
    except msgspec.ValidationError as error:
        members = msgspec.json.decode(data, type=dict[str, msgspec.Raw])
        raws = msgspec.json.decode(members.get("events", b"[]"), type=list[msgspec.Raw])
        if all(_type_decoder.decode(raw).type in KNOWN_TYPES for raw in raws):
            raise error from None
    members["events"] = msgspec.Raw(b"[]")
    rest = decoder.decode(msgspec.json.encode(members))
    return msgspec.structs.replace(rest, events=[decode_any_event(bytes(raw)) for raw in raws])


def _unknown(data: bytes) -> UnknownEvent:
    members = msgspec.json.decode(data, type=dict[str, Any])
    if _has_fraction(members):
        # No event has one, and the hashes of the archive are over integers and texts.
        raise msgspec.ValidationError("an event of an unknown type holds a number that is no integer")
    named = {"type": UnknownEvent.__struct_config__.tag, "type_name": members["type"], "body": data}
    return msgspec.convert(members | named, UnknownEvent)


def _has_fraction(value: Any) -> bool:
    match value:
        case float():
            return True
        case dict():
            return any(map(_has_fraction, value.values()))
        case list():
            return any(map(_has_fraction, value))
    return False


def encode_event(event: AnyEvent) -> bytes:
    """One event as JSON, the inverse of :func:`decode_any_event`."""
    if type(event) is UnknownEvent:
        return event.body
    encoded: bytes = msgspec.json.encode(event)
    return encoded


def type_of(event: EventBase) -> str:
    """``bid``, ``created``, ``extended`` …: the event's type on the wire."""
    if isinstance(event, UnknownEvent):
        return event.type_name
    tag = event.__struct_config__.tag
    assert isinstance(tag, str), "every event of the wire has a tag"
    return tag
