"""The verdicts that Redis keeps of an item's bids, so that a repeated bid gets its answer again. Pure.

Three hashes per item have the same fields. ``verdicts`` keeps every accepted bid for as long as the item can take bids,
and ``limits.VERDICT_KEEP_S`` longer. ``refusals`` and ``older-refusals`` keep some refused bids for some time.
``place_bids.lua`` reads and writes them, ``bids/by-key`` reads them, and ``recover`` writes the first.

    b:<bid id>         the bid that was sent with this ``bid_id``
    h:<key>            the bid of the bidder who sent this Idempotency-Key first
    u:<user id>|<key>  that of any other bidder who sent it

A value is ``<user id> LF <fingerprint> LF <verdict line>``. User ids hold neither ``|`` nor a line feed. Bids that
came under no key are not there: the gateway made their ids, and nobody can send those.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StoredVerdict:
    """The bidder, what the bid asked for (``fingerprint``), and the line that ``place_bids.lua`` answered."""

    user_id: str
    fingerprint: str
    line: bytes

    def encode(self) -> bytes:
        """The value of a field."""
        return f"{self.user_id}\n{self.fingerprint}\n".encode() + self.line

    @classmethod
    def decode(cls, value: bytes) -> StoredVerdict:
        """Read the value of a field."""
        user_id, fingerprint, line = value.split(b"\n", 2)
        return cls(user_id.decode(), fingerprint.decode(), line)


def fingerprint_of(amount: int | None, maximum: int | None) -> str:
    """What must be equal for a bid under a known key to be the same bid."""
    return f"{'' if amount is None else amount},{'' if maximum is None else maximum}"


def amount_of(fingerprint: str) -> int | None:
    """The amount that was asked for, None where there was a maximum alone."""
    amount = fingerprint.partition(",")[0]
    return int(amount) if amount else None


def field_of_bid_id(bid_id: str) -> str:
    """The field with the verdict of the bid that was sent with this ``bid_id``."""
    return f"b:{bid_id}"


def field_of_first(key: str) -> str:
    """The field with the verdict of the first bidder who sent this header key."""
    return f"h:{key}"


def field_of_other(user_id: str, key: str) -> str:
    """The field with the verdict of a later bidder who sent the same header key."""
    return f"u:{user_id}|{key}"


def fields_for(user_id: str | None, key: str) -> tuple[str, ...]:
    """The fields that may hold the verdict under ``key``, of ``user_id`` or, where it is None, of anybody."""
    named = (field_of_bid_id(key), field_of_first(key))
    return named if user_id is None else (field_of_other(user_id, key), *named)


def find_verdict(found: Mapping[str, bytes], user_id: str | None, key: str) -> StoredVerdict | None:
    """The verdict under ``key`` among the fields of one hash.

    A bidder's header keys and bid ids are one name space. Without a bidder the bid of this id is meant, or else the
    first one under this header key.
    """
    for field in fields_for(user_id, key):
        if field in found:
            stored = StoredVerdict.decode(found[field])
            if user_id is None or stored.user_id == user_id:
                return stored
    return None
