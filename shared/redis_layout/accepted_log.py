"""The log of accepted bids that Redis keeps beside an item, and its entries as the archive knows them.

``lib/bidding.lua`` and ``void.lua`` write it and read it; ``bidding recover`` writes it again; a gateway that voids a
bid reads it. It holds hidden maxima, so nothing of it goes into any answer, frame or log line.

An entry is a line of fields, joined by ``|``: position, seq, bid id, user id, amount, maximum, kind (``b``, ``n`` for
buy-now, ``a`` for an automatic bid after a void), the price that it showed, the automatic answer and whose that is, and
three digits: struck, its row stands, its answer stands. Absent fields are empty.
"""

from __future__ import annotations

from typing import Any, Final, Literal, Protocol

from shared.domain.bidding import Bid
from shared.domain.voiding import LogEntry


class Row(Protocol):
    """A row of a query; asyncpg's record is no mapping."""

    def __getitem__(self, name: str, /) -> Any: ...


Kind = Literal["bid", "buy_now", "anew"]
_KINDS: Final[dict[str, Kind]] = {"b": "bid", "n": "buy_now", "a": "anew"}
_LETTERS: Final = {kind: letter for letter, kind in _KINDS.items()}


def encode_entry(entry: LogEntry) -> str:
    """One entry as the scripts write it."""
    fields = (
        entry.position,
        entry.seq,
        entry.bid.bid_id,
        entry.bid.user_id,
        entry.bid.amount,
        entry.bid.maximum,
        _LETTERS[entry.kind],
        entry.shown,
        entry.answer,
        entry.answered_by,
        f"{entry.is_struck:d}{entry.row_stands:d}{entry.answer_stands:d}",
    )
    return "|".join("" if field is None else str(field) for field in fields)


def decode_entry(line: bytes) -> LogEntry:
    """The inverse of :func:`encode_entry`.

    Raises:
        ValueError, KeyError: it was not written by this platform.
    """
    position, seq, bid_id, user_id, amount, maximum, kind, shown, answer, by, marks = line.decode().split("|")
    return LogEntry(
        int(position),
        int(seq),
        Bid(bid_id, user_id, _optional(amount), _optional(maximum)),
        _KINDS[kind],
        _optional(shown),
        _optional(answer),
        by or None,
        *(mark == "1" for mark in marks),
    )


def _optional(text: str) -> int | None:
    return int(text) if text else None


def archived_entry(row: Row, position: int) -> LogEntry:
    """The entry of an accepted bid as the archive has it: a bid's row with its sealed fact, or a raised maximum.

    Args:
        row: ``seq, bid_id, user_id, kind, shown, status, amount, max_amount, answer, answered_by, answer_status,
            is_struck``; ``kind`` is null of a raised maximum. Where both amounts are null the bid was a plain one.
    """
    kind: Kind = "anew" if row["kind"] == "proxy" else "buy_now" if row["kind"] == "buy_now" else "bid"
    amount, maximum = row["amount"], row["max_amount"]
    if amount is None and maximum is None:
        amount = row["shown"]
    return LogEntry(
        position,
        row["seq"],
        Bid(row["bid_id"], row["user_id"], amount, maximum),
        kind,
        row["shown"],
        row["answer"],
        row["answered_by"],
        row["is_struck"],
        row["status"] == "valid",
        row["answer_status"] == "valid",
    )
