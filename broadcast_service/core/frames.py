"""Frames: the messages to viewers, each serialised once for all its viewers. Pure.

Amounts are exact JSON numbers with the currency's decimals, times are RFC 3339. No frame has a reserve price, a hidden
maximum or the name of an operator: the functions below name every field that goes out. The one exception is a bidder's
own maximum, in a ``standing`` for that bidder alone. With ``AUTH_MODE=jwt`` no frame has the id of a bidder, but the
``authenticated`` that answers their own token or ticket.
"""

from __future__ import annotations

from enum import Enum
from typing import Any, Final, Literal

import msgspec

from shared.aliases import alias_of, public_id
from shared.domain.errors import ShardLost
from shared.messages import (
    AuctionCancelled,
    AuctionClosed,
    AuctionExtended,
    AuctionOpened,
    AuctionPaused,
    AuctionResumed,
    BidAccepted,
    BidVoided,
    EndMoved,
    Event,
    ItemCreated,
)
from shared.redis_layout.item_hash import ItemState, amount_json, public_event_state, public_item
from shared.timefmt import to_rfc3339

Version = tuple[int, int]
"""``(epoch, seq)``: the higher one is the newer one."""

UNKNOWN: Final[Version] = (0, -1)
"""The version of an item that does not exist yet: older than every event."""


class FrameKind(Enum):
    """How a frame that waits for a slow viewer may be conflated."""

    CONTROL = "control"
    """About the connection; never dropped."""
    STATUS = "status"
    """A present status; the next one of the same topic replaces it."""
    SNAPSHOT = "snapshot"
    """The full state of an item; only a newer snapshot replaces it."""
    EVENT = "event"
    """One event of an item; may be merged with later ones."""


class Frame:
    """One JSON text.

    Attributes:
        item_id, version: of the item; empty and :data:`UNKNOWN` for a frame about no item.
        event: for kind EVENT, what the frame was made of.
        events, bids: how many events the frame stands for, and how many of them are accepted bids.
        extensions: how often the item was extended up to the event.
        created_us: when the item was created, by which its bidders are named; None in a frame that names nobody.
        topic: for kind STATUS, what the frame is about.
        wire, sse: the text encoded for a WebSocket, and as a server-sent event; the first sender sets it.
    """

    __slots__ = (
        "_text",
        "bids",
        "created_us",
        "event",
        "events",
        "extensions",
        "item_id",
        "kind",
        "sse",
        "topic",
        "version",
        "wire",
    )

    def __init__(
        self,
        kind: FrameKind,
        content: dict[str, Any] | None,
        *,
        item_id: str = "",
        version: Version = UNKNOWN,
        event: Event | None = None,
        events: int = 0,
        bids: int = 0,
        extensions: int = 0,
        created_us: int | None = None,
        topic: str = "",
    ) -> None:
        """``content`` None: the event itself, encoded only on demand; most events of a busy item are conflated."""
        self.kind = kind
        self.item_id = item_id
        self.version = version
        self.event = event
        self.events = events
        self.bids = bids
        self.extensions = extensions
        self.created_us = created_us
        self.topic = topic
        self._text = None if content is None else _encode(content)
        self.wire: bytes | None = None
        self.sse: bytes | None = None

    @property
    def text(self) -> bytes:
        """The JSON, encoded."""
        if self._text is None:
            assert self.event is not None
            self._text = _encode(_event_content(self.event, self.created_us))
        return self._text

    def __repr__(self) -> str:
        return f"Frame({self.text.decode()})"


_encode = msgspec.json.Encoder().encode


def version_text(version: Version) -> str:
    """``<epoch>:<seq>``, what viewers send back as ``since``."""
    return f"{version[0]}:{version[1]}"


# ---------------------------------------------------------------------------------------------- about the connection


def connected_frame(client_id: str, item_id: str | None, now_us: int, *, heartbeat_s: float, full: bool) -> Frame:
    """The first frame of every connection; ``itemId`` is null where the connection is for many items.

    Args:
        heartbeat_s: seconds between heartbeats; after a silence of three times as long, clients treat the connection
            as dead.
        full: whether the viewer gets every event, or a limited number of frames per second and item.
    """
    return Frame(
        FrameKind.CONTROL,
        {
            "type": "connected",
            "itemId": item_id,
            "clientId": client_id,
            "server_time": to_rfc3339(now_us),
            "heartbeat_s": heartbeat_s,
            "feed": "full" if full else "conflated",
        },
    )


def heartbeat_frame(now_us: int, *, stale: bool) -> Frame:
    """The connection is alive, with the server's time. ``stale``: this broadcaster receives no events now."""
    content: dict[str, Any] = {"type": "heartbeat", "server_time": to_rfc3339(now_us)}
    if stale:
        content["stale"] = True
    return Frame(FrameKind.STATUS, content, topic="heartbeat")


def authenticated_frame(user_id: str, expires_us: int) -> Frame:
    """The token was accepted: standings of this user follow, until it expires."""
    return Frame(FrameKind.CONTROL, {"type": "authenticated", "user_id": user_id, "expires": to_rfc3339(expires_us)})


def resumed_frame(item_id: str, since: Version, version: Version, replayed: int) -> Frame:
    """Answers ``since``: exactly ``replayed`` frames follow, up to ``version``, then the live ones."""
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
    """No more frames about these items follow."""
    return Frame(FrameKind.CONTROL, {"type": "unsubscribed", "items": items})


def pong_frame(now_us: int) -> Frame:
    """The answer to ``{"op":"ping"}``, for clients that cannot send WebSocket pings."""
    return Frame(FrameKind.CONTROL, {"type": "pong", "server_time": to_rfc3339(now_us)})


def error_frame(code: str, message: str, *, item_id: str | None = None) -> Frame:
    """An operation failed. ``code`` is a stable name, ``message`` says what to do."""
    content = {"type": "error", "code": code, "message": message}
    if item_id is not None:
        content["item_id"] = item_id
    return Frame(FrameKind.CONTROL, content)


def lost_frame(item_id: str) -> Frame:
    """Redis has lost the item or its shard. The viewer stays; its first frame about the item comes later."""
    text = "this item was lost and is being rebuilt; its state follows as soon as it is back"
    return error_frame(ShardLost.code, text, item_id=item_id)


# ------------------------------------------------------------------------------------------------------ about an item


def snapshot_frame(item: ItemState, *, recovered: bool | None = None) -> Frame:
    """The full public state.

    Args:
        recovered: False where events before it are missing that the viewer asked for or should have got; None where
            it asked for none.
    """
    state = public_item(item)
    content: dict[str, Any] = {
        "type": "snapshot",
        "item_id": state.pop("id"),
        **state,
        "extensions": item.state.extensions,
    }
    if recovered is not None:
        content["recovered"] = recovered
    return Frame(FrameKind.SNAPSHOT, content, item_id=item.terms.item_id, version=item.version)


def unknown_frame(item_id: str, *, recovered: bool | None = None) -> Frame:
    """The snapshot of an item that does not exist yet; its first event follows when somebody bids."""
    epoch, seq = UNKNOWN
    content = {"type": "snapshot", "item_id": item_id, "status": "unknown", "epoch": epoch, "seq": seq}
    if recovered is not None:
        content["recovered"] = recovered
    return Frame(FrameKind.SNAPSHOT, content, item_id=item_id)


def event_frame(event: Event, *, extensions: int = 0, created_us: int | None = None) -> Frame:
    """One event and the public state after it.

    Args:
        extensions: how often the item was extended up to this event; shown by a ``state`` that replaces it.
        created_us: when the item was created, as of :func:`shared.aliases.alias_of`.

    Raises:
        ValueError: a ``created`` event; viewers get a snapshot instead.
    """
    if isinstance(event, ItemCreated):
        raise ValueError("a created event carries the reserve price and is never shown as it is")
    return Frame(
        FrameKind.EVENT,
        None,
        item_id=event.item_id,
        version=event.version,
        event=event,
        events=1,
        bids=1 if isinstance(event, BidAccepted) else 0,
        extensions=extensions,
        created_us=created_us,
    )


def state_frame(event: Event, *, events: int, bids: int, extensions: int, created_us: int | None = None) -> Frame:
    """The state after ``event``, in place of it and of events before it.

    Args:
        events: how many events it stands for, including ``event``.
        bids: how many of them are accepted bids; shown as ``bids_since_last``.
        extensions: how often the item was extended up to ``event``.
        created_us: when the item was created, as of :func:`shared.aliases.alias_of`.
    """
    content = {
        "type": "state",
        "event_id": event.event_id,
        "bids_since_last": bids,
        "extensions": extensions,
        **public_event_state(event, created_us),
    }
    return Frame(
        FrameKind.EVENT,
        content,
        item_id=event.item_id,
        version=event.version,
        event=event,
        events=events,
        bids=bids,
        extensions=extensions,
        created_us=created_us,
    )


def stale_frame(item_id: str, version: Version, stale: bool) -> Frame:
    """``stale``: events do not flow, so the item may be ahead of ``version``. Otherwise events flow again."""
    epoch, seq = version
    content = {"type": "stale", "item_id": item_id, "stale": stale, "epoch": epoch, "seq": seq}
    return Frame(FrameKind.STATUS, content, item_id=item_id, version=version, topic="stale")


def viewers_frame(item_id: str, viewers: int, exact: bool) -> Frame:
    """How many watch the item. Not ``exact`` where counts of other broadcasters are in it: they are a little old."""
    content = {"type": "viewers", "item_id": item_id, "viewers": viewers, "exact": exact}
    return Frame(FrameKind.STATUS, content, item_id=item_id, topic="viewers")


Standing = Literal["leading", "outbid", "won", "lost", "none"]


def standing_frame(
    item_id: str,
    version: Version,
    standing: Standing,
    *,
    alias: str,
    current_bid: int | None,
    min_next_bid: int | None,
    currency: str,
    your_maximum: int | None,
) -> Frame:
    """How a bidder stands. Sent to this bidder alone.

    Args:
        alias: the bidder's own alias on the item. No frame tells whom another alias names.
        current_bid, min_next_bid: minor units; None for an item that does not exist yet.
        your_maximum: the bidder's own maximum in minor units; None where there is none or the token does not allow it.
    """
    epoch, seq = version

    def amount(minor: int | None) -> msgspec.Raw | None:
        return None if minor is None else amount_json(minor, currency)

    content = {
        "type": "standing",
        "item_id": item_id,
        "epoch": epoch,
        "seq": seq,
        "standing": standing,
        "alias": alias,
        "current_bid": amount(current_bid),
        "min_next_bid": amount(min_next_bid),
        "your_maximum": amount(your_maximum),
    }
    return Frame(FrameKind.STATUS, content, item_id=item_id, version=version, topic="standing")


def struck_frame(
    item_id: str, version: Version, *, bid_id: str, amount: int | None, reason: str, ts_us: int, currency: str
) -> Frame:
    """A bid of this bidder was struck. Sent to this bidder alone.

    Args:
        version: of the event that struck it.
        amount: the price that the bid had set, in minor units; None for a raise, which had set none.
        ts_us: when, in microseconds.
    """
    epoch, seq = version
    content = {
        "type": "struck",
        "item_id": item_id,
        "epoch": epoch,
        "seq": seq,
        "timestamp": to_rfc3339(ts_us),
        "bid_id": bid_id,
        "amount": None if amount is None else amount_json(amount, currency),
        "reason": reason,
    }
    # A topic of its own, so that a later one does not replace it.
    return Frame(FrameKind.STATUS, content, item_id=item_id, version=version, topic=f"struck:{seq}")


def _event_content(event: Event, created_us: int | None) -> dict[str, Any]:
    return {
        # Viewers get one type for every end that moved; the reason tells why it did.
        "type": "extended" if isinstance(event, EndMoved) else event.__struct_config__.tag,
        "event_id": event.event_id,
        **_own_fields(event, created_us),
        **public_event_state(event, created_us),
    }


def _own_fields(event: Event, created_us: int | None) -> dict[str, Any]:
    """The public fields of an event beyond the state."""

    def named(user_id: str) -> str:
        return alias_of(event.item_id, user_id, created_us)

    def shown(user_id: str) -> str:
        return public_id(event.item_id, user_id, created_us)

    match event:
        case BidAccepted():
            return {
                "bid_id": event.bid_id,
                "user_id": shown(event.user_id),
                "bidder": named(event.user_id),
                "amount": amount_json(event.amount, event.currency),
                "previous_bid": amount_json(event.previous_bid, event.currency),
                "kind": event.kind,
            }
        case AuctionExtended() | EndMoved():
            told = {
                "previous_end_time": to_rfc3339(event.previous_end_us),
                "original_end_time": to_rfc3339(event.original_end_us),
                "extensions": event.extensions,
            }
            return told | {"reason": event.reason} if isinstance(event, EndMoved) else told
        case AuctionPaused() | AuctionResumed() | AuctionCancelled():
            return {"reason": event.reason}
        case AuctionClosed():
            winner = event.winner_id
            if winner is None:
                return {"winner_id": None, "winner": None}
            return {"winner_id": shown(winner), "winner": named(winner)}
        case BidVoided():
            return {
                "bid_id": event.bid_id,
                "voided_seq": event.voided_seq,
                "user_id": None if event.bidder_id is None else shown(event.bidder_id),
                "bidder": None if event.bidder_id is None else named(event.bidder_id),
                "amount": None if event.amount is None else amount_json(event.amount, event.currency),
                "automatic_until": event.automatic_until,
                "offered_to": None if event.offered_to is None else named(event.offered_to),
                "reason": event.reason,
            }
        case AuctionOpened():
            return {}
        case ItemCreated():
            raise ValueError("a created event carries the reserve price and is never shown as it is")
