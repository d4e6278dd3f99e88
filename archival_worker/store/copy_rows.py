"""Bids as rows of PostgreSQL's binary COPY, made when a message arrives. Pure.

The driver can make these rows from records of Python values, but only when they are sent, so PostgreSQL waits for all
of them. And each row costs twice as much there: a tuple, a ``datetime``, and a codec for each of its values.

The layout (PostgreSQL's manual on COPY, "Binary Format"): after a header, each row is the number of its values in two
bytes, then each value as its length in four bytes (-1: NULL) and its bytes; two bytes of ones end it all. Integers are
big-endian; a ``timestamptz`` is in microseconds since 2000.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from struct import Struct
from struct import error as StructError
from typing import Final

from shared.messages import AnyEvent, BidAccepted

COPY_COLUMNS: Final = (
    "item_id",
    "epoch",
    "seq",
    "amount",
    "previous_bid",
    "placed_at",
    "bid_id",
    "user_id",
    "kind",
    "leader_id",
)
"""The columns of ``bids`` in the order of :func:`copy_rows`: all numbers are together, so that one call packs them."""

# The years 1 to 9999, which Python's calendar has. PostgreSQL's goes further, but its two ends mean "infinity".
_FIRST_US: Final = -62_135_596_800_000_000
_END_US: Final = 253_402_300_800_000_000
_US_OF_2000: Final = 946_684_800_000_000

_HEADER: Final = b"PGCOPY\n\xff\r\n\0" + bytes(8)
_TRAILER: Final = b"\xff\xff"

_pack_length = Struct(">i").pack
_pack_start = Struct(">hi").pack
# Each number after its length; at the end the length of the bid id.
_pack_numbers = Struct(">iiiqiqiqiqi").pack
_NULL: Final = _pack_length(-1)


def _text(value: str) -> bytes:
    encoded = value.encode()
    return _pack_length(len(encoded)) + encoded


_KINDS: Final = {kind: _text(kind) for kind in ("bid", "proxy", "buy_now")}
_LED: Final = {kind: text + _NULL for kind, text in _KINDS.items()}
"""By kind, the end of the row of a bidder who led."""


def copy_rows(item_id: str, events: Sequence[AnyEvent]) -> bytes | None:
    """The bids among an item's events, one row each in the order of :data:`COPY_COLUMNS`.

    None where one of them cannot be in a row: a number that its column has no room for, an instant outside the years 1
    to 9999, half of a surrogate pair. Whoever stores the bids then leaves them to PostgreSQL's own conversion, which
    tells what is wrong.
    """
    parts: list[bytes] = []
    try:
        name = item_id.encode()
        start = _pack_start(len(COPY_COLUMNS), len(name)) + name
        for event in events:
            if type(event) is not BidAccepted:
                continue
            at_us = event.ts_us
            if not _FIRST_US <= at_us < _END_US:
                return None
            bid_id, user_id = event.bid_id.encode(), event.user_id.encode()
            leader_id = event.highest_bidder_id
            parts += (
                start,
                _pack_numbers(
                    4,
                    event.epoch,
                    8,
                    event.seq,
                    8,
                    event.amount,
                    8,
                    event.previous_bid,
                    8,
                    at_us - _US_OF_2000,
                    len(bid_id),
                ),
                bid_id,
                _pack_length(len(user_id)),
                user_id,
                _LED[event.kind]
                if leader_id is None or leader_id == event.user_id
                else _KINDS[event.kind] + _text(leader_id),
            )
    except (StructError, UnicodeEncodeError):
        return None
    return b"".join(parts)


def copy_data(rows: Iterable[bytes]) -> bytes:
    """The data of one COPY of these rows."""
    return b"".join((_HEADER, *rows, _TRAILER))
