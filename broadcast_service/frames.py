"""What is sent to viewers: public frames, each serialised once however many viewers it has. Pure.

Amounts are exact JSON numbers with the currency's decimals and times RFC 3339. A reserve price, a hidden maximum or
the name of an operator is in no frame: the functions below name every field that goes out.
"""

from __future__ import annotations

from enum import Enum
from typing import Any, Final

import msgspec

from shared.aliases import alias_of
from shared.item_state import ItemState, amount_json, public_event_state, public_item
from shared.messages import (
    AuctionCancelled,
    AuctionClosed,
    AuctionExtended,
    AuctionOpened,
    AuctionPaused,
    AuctionResumed,
    BidAccepted,
    BidVoided,
    Event,
    ItemCreated,
)
from shared.timefmt import to_rfc3339

Version = tuple[int, int]
"""``(epoch, seq)``: the higher one is the newer one."""

UNKNOWN: Final[Version] = (0, -1)
"""The version of an item that does not exist yet: older than every event."""


class FrameKind(Enum):
    """What may be done with a frame that waits for a slow viewer."""

    CONTROL = "control"
    """Belongs to the connection; never dropped."""
    SNAPSHOT = "snapshot"
    """The full state of an item; only a newer snapshot replaces it."""
    EVENT = "event"
    """One event of an item; may be merged with later ones."""


class Frame:
    """One JSON text.

    Attributes:
        text: the JSON, encoded.
        item_id, version: of which item, at which version; empty and :data:`UNKNOWN` for control frames.
        event: what the frame was made of, for kind EVENT.
        wire: the text as it goes over a WebSocket; written by the transport when it sends the frame for the first time.
    """

    __slots__ = ("event", "item_id", "kind", "text", "version", "wire")

    def __init__(
        self,
        kind: FrameKind,
        content: dict[str, Any],
        *,
        item_id: str = "",
        version: Version = UNKNOWN,
        event: Event | None = None,
    ) -> None:
        self.kind = kind
        self.item_id = item_id
        self.version = version
        self.event = event
        self.text = _encode(content)
        self.wire: bytes | None = None

    def __repr__(self) -> str:
        return f"Frame({self.text.decode()})"


_encode = msgspec.json.Encoder().encode


def version_text(version: Version) -> str:
    """``<epoch>:<seq>``, what viewers send back as ``since``."""
    return f"{version[0]}:{version[1]}"


# ---------------------------------------------------------------------------------------------- about the connection


def connected_frame(client_id: str, item_id: str | None, now_us: int) -> Frame:
    """The first frame of every connection; ``itemId`` is null where the connection is for many items."""
    return Frame(
        FrameKind.CONTROL,
        {"type": "connected", "itemId": item_id, "clientId": client_id, "server_time": to_rfc3339(now_us)},
    )


def resumed_frame(item_id: str, since: Version, version: Version, replayed: int) -> Frame:
    """Says that ``since`` was understood: exactly ``replayed`` frames follow, up to ``version``, then the live ones."""
    epoch, seq = version
    return Frame(
        FrameKind.CONTROL,
        {
            "type": "resumed",
            "item_id": item_id,
            "recovered": True,
            "since": version_text(since),
            "replayed": replayed,
            "epoch": epoch,
            "seq": seq,
        },
        item_id=item_id,
    )


def unsubscribed_frame(items: list[str]) -> Frame:
    """No frame about these items follows."""
    return Frame(FrameKind.CONTROL, {"type": "unsubscribed", "items": items})


def pong_frame(now_us: int) -> Frame:
    """The answer to ``{"op":"ping"}``, for clients that cannot send WebSocket pings."""
    return Frame(FrameKind.CONTROL, {"type": "pong", "server_time": to_rfc3339(now_us)})


def error_frame(code: str, message: str, *, item_id: str | None = None) -> Frame:
    """An operation was not carried out. ``code`` is a stable name, ``message`` says what to do."""
    content = {"type": "error", "code": code, "message": message}
    if item_id is not None:
        content["item_id"] = item_id
    return Frame(FrameKind.CONTROL, content)


# ------------------------------------------------------------------------------------------------------ about an item


def snapshot_frame(item: ItemState, *, recovered: bool | None = None) -> Frame:
    """The full public state.

    Args:
        recovered: False where the viewer asked for, or should have got, the events before it and cannot have them; None
            where it asked for none.
    """
    state = public_item(item)
    content: dict[str, Any] = {"type": "snapshot", "item_id": state.pop("id"), **state}
    if recovered is not None:
        content["recovered"] = recovered
    return Frame(FrameKind.SNAPSHOT, content, item_id=item.terms.item_id, version=item.version)


def unknown_frame(item_id: str, *, recovered: bool | None = None) -> Frame:
    """The snapshot of an item that does not exist yet; its first event follows as soon as somebody bids."""
    epoch, seq = UNKNOWN
    content = {"type": "snapshot", "item_id": item_id, "status": "unknown", "epoch": epoch, "seq": seq}
    if recovered is not None:
        content["recovered"] = recovered
    return Frame(FrameKind.SNAPSHOT, content, item_id=item_id)


def event_frame(event: Event) -> Frame:
    """One event and the public state after it. ``created`` has no frame of its own: viewers get a snapshot instead."""
    content = {
        "type": event.__struct_config__.tag,
        "event_id": event.event_id,
        **_own_fields(event),
        **public_event_state(event),
    }
    return Frame(FrameKind.EVENT, content, item_id=event.item_id, version=event.version, event=event)


def state_frame(event: Event, bids_since_last: int) -> Frame:
    """The state after ``event``, in place of it and of events before it that the viewer was too slow for.

    Args:
        bids_since_last: accepted bids since the last frame about this item, up to and with ``event``.
    """
    content = {
        "type": "state",
        "event_id": event.event_id,
        "bids_since_last": bids_since_last,
        **public_event_state(event),
    }
    return Frame(FrameKind.EVENT, content, item_id=event.item_id, version=event.version, event=event)


def _own_fields(event: Event) -> dict[str, Any]:
    """What an event has beyond the state, as far as anybody may see it."""
    match event:
        case BidAccepted():
            return {
                "bid_id": event.bid_id,
                "user_id": event.user_id,
                "bidder": alias_of(event.item_id, event.user_id),
                "amount": amount_json(event.amount, event.currency),
                "previous_bid": amount_json(event.previous_bid, event.currency),
                "kind": event.kind,
            }
        case AuctionExtended():
            return {
                "previous_end_time": to_rfc3339(event.previous_end_us),
                "original_end_time": to_rfc3339(event.original_end_us),
                "extensions": event.extensions,
            }
        case AuctionPaused() | AuctionResumed() | AuctionCancelled():
            return {"reason": event.reason}
        case AuctionClosed():
            winner = event.winner_id
            return {"winner_id": winner, "winner": None if winner is None else alias_of(event.item_id, winner)}
        case BidVoided():
            offered = None if event.offered_to is None else alias_of(event.item_id, event.offered_to)
            return {
                "bid_id": event.bid_id,
                "voided_seq": event.voided_seq,
                "offered_to": offered,
                "reason": event.reason,
            }
        case AuctionOpened():
            return {}
        case ItemCreated():
            raise ValueError("a created event carries the reserve price and is never shown as it is")
