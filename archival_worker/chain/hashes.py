"""The chain over an item's events: what is hashed, byte by byte, and what may follow what. Pure.

The hash of an event is ``SHA-256(hash of the event before it || canonical content of the event)``. The hash before the
first event is 32 zero bytes. The canonical content is one JSON object in UTF-8 as RFC 8785 has it: keys in alphabetical
order, no white space, no escapes but those that JSON demands. All numbers are integers. Its keys are, of a bid:

    amount at_us bid_id epoch item_id kind leader_id previous_bid seq type user_id

and of any other event, where ``body`` is the whole event as it was on the wire:

    at_us body epoch item_id seq type

``at_us`` is in microseconds since 1970, UTC, and ``leader_id`` is null if the bidder led. What may change later is left
out: the ``voided`` event, which is in the chain itself, tells whether a bid was struck.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from hashlib import sha256
from typing import Any, Final, NamedTuple, Protocol

import msgspec
from typing_extensions import override

HASH_BYTES: Final = 32

_ENCODER: Final = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False)

# In canonical order, so that nothing needs sorting.
_BID_KEYS: Final = (
    "amount",
    "at_us",
    "bid_id",
    "epoch",
    "item_id",
    "kind",
    "leader_id",
    "previous_bid",
    "seq",
    "type",
    "user_id",
)
_EVENT_KEYS: Final = ("at_us", "body", "epoch", "item_id", "seq", "type")

_encode_bid = msgspec.json.Encoder().encode


class Row(Protocol):
    """A row of ``bids`` or ``events`` as ``read_rows`` gives it: a record of the driver, or a dictionary."""

    def __getitem__(self, key: str, /) -> Any: ...


class Version(NamedTuple):
    """An event's place in its item's log. Places sort in the order of their events."""

    epoch: int
    seq: int

    @override
    def __str__(self) -> str:
        return f"{self.epoch}:{self.seq}"


NOWHERE: Final = Version(0, -1)
"""The place before the first event."""


class Head(NamedTuple):
    """The end of a chain: its last event's place and hash."""

    place: Version
    hash: bytes


START: Final = Head(NOWHERE, bytes(HASH_BYTES))
"""The empty chain."""


def follows(place: Version, following: Version) -> bool:
    """Whether nothing can be between the two: the next number, in the same epoch or a later one (a rebuilt item goes on
    counting), or 0 in a later epoch (the item was created again)."""
    if following.epoch == place.epoch:
        return following.seq == place.seq + 1
    return following.epoch > place.epoch and following.seq in (0, place.seq + 1)


def canonical(content: Any) -> bytes:
    """The canonical JSON of an object without floats.

    Raises:
        UnicodeEncodeError: half of a surrogate pair, which is no text.
    """
    return _ENCODER.encode(content).encode()


def content_of(row: Row) -> bytes:
    """The canonical content of a row."""
    if row["type"] == "bid" and row["body"] is None:
        return _encode_bid({key: row[key] for key in _BID_KEYS})
    return canonical({key: row[key] for key in _EVENT_KEYS} | {"body": json.loads(row["body"])})


def next_hash(previous: bytes, content: bytes) -> bytes:
    """The hash of the event with this canonical content, after the event with the hash ``previous``."""
    return sha256(previous + content).digest()


def extended(head: Head, rows: Iterable[Row]) -> tuple[list[Head], Version | None]:
    """The chain's new links, in order, and the place before which something is missing, or None.

    Args:
        head: the end of the chain.
        rows: events of the item after it, in order, perhaps with gaps.
    """
    links: list[Head] = []
    for row in rows:
        place = Version(row["epoch"], row["seq"])
        if not follows(head.place, place):
            return links, place
        head = Head(place, next_hash(head.hash, content_of(row)))
        links.append(head)
    return links, None
