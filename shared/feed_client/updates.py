"""The updates of a client of the live feed, and its errors. See ``docs/feed.md`` for the protocol."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Any

Version = tuple[int, int]
"""``(epoch, seq)`` of an item: the higher one is the newer one."""


class ConnectionState(StrEnum):
    """The state of the connection, and so how far the items can be trusted."""

    CONNECTING = "connecting"
    """A connection is being made; items may be out of date."""
    LIVE = "live"
    """Connected, and events flow."""
    STALE = "stale"
    """Connected, but the service does not get the events of at least one item that is followed."""
    OFFLINE = "offline"
    """Not connected: waiting for the next attempt, or closed."""


@dataclass(frozen=True, slots=True)
class ItemUpdate:
    """An item has a newer version. The versions of an item only rise, even across connections.

    Attributes:
        kind: the frame's type: ``snapshot``, ``bid``, ``state``, ``extended``, ``closed``…
        frame: the frame as received; amounts are :class:`~decimal.Decimal` or int.
        item: the whole public state after it.
        bids: the accepted bids that it stands for: 1 for a bid, any number for a ``state``, None if unknown (a
            snapshot).
        complete: whether it is the very next event after the previous update, so that none was left out.
    """

    item_id: str
    kind: str
    version: Version
    frame: Mapping[str, Any]
    item: Mapping[str, Any]
    bids: int | None
    complete: bool

    @property
    def price(self) -> Decimal | None:
        """The current bid, or the start price before the first one; None for an item that does not exist yet."""
        amount = self.item.get("current_bid")
        return None if amount is None else Decimal(amount)


@dataclass(frozen=True, slots=True)
class StaleItem:
    """``stale``: events of the item do not reach the service. False: they do again, and the item is up to date."""

    item_id: str
    stale: bool


@dataclass(frozen=True, slots=True)
class Viewers:
    """The number of viewers; not ``exact`` if counts of other broadcasters, which are a little old, are in it."""

    item_id: str
    viewers: int
    exact: bool


@dataclass(frozen=True, slots=True)
class Authenticated:
    """The private channel is open until ``expires`` (RFC 3339; None if the service does not tell)."""

    user_id: str
    expires: str | None


@dataclass(frozen=True, slots=True)
class Standing:
    """How the authenticated bidder stands on an item.

    ``standing`` is ``leading``, ``outbid``, ``won``, ``lost`` or ``none``; ``your_maximum`` is None unless the token or
    ticket allows it to be told; ``alias`` is the bidder's own public name on the item, None of an older service.
    """

    item_id: str
    version: Version
    standing: str
    current_bid: Decimal | None
    min_next_bid: Decimal | None
    your_maximum: Decimal | None
    alias: str | None = None


@dataclass(frozen=True, slots=True)
class Refused:
    """An operation failed, for example with ``ITEM_NOT_FOUND`` or ``TOKEN_EXPIRED``; the feed goes on.

    After ``TOO_MANY_OPERATIONS`` it goes on over a new connection, some seconds later, with all items that are followed
    then.

    ``item_id``: the item that it is about, if it is one; ``ended``: this item is no longer followed.
    """

    code: str
    message: str
    item_id: str | None = None
    ended: bool = False


@dataclass(frozen=True, slots=True)
class ConnectionChanged:
    """The state of the connection has changed."""

    state: ConnectionState


Update = ItemUpdate | StaleItem | Viewers | Authenticated | Standing | Refused | ConnectionChanged


class FeedError(Exception):
    """The feed ended for good: the same request would be refused again."""


class FeedClosed(FeedError):
    """The service closed the connection with a final code."""

    def __init__(self, code: int, reason: str) -> None:
        self.code = code
        self.reason = reason
        super().__init__(f"the feed was closed for good: {code} {reason}".rstrip())


class FeedDenied(FeedError):
    """The service refused the upgrade with a final status, for example 403."""

    def __init__(self, status: int, detail: str) -> None:
        self.status = status
        self.detail = detail
        super().__init__(f"the feed refused the connection: {status} {detail}".rstrip())
