"""What was ruled on bidders, as Redis keeps it. Pure.

On an item: the hash ``{s07}:rulings:<item>`` has under a user id ``<flags>|<limit>``; the limit in minor units, empty
for none. A ruling is decided in the shard where it is kept, so it needs no copies.

For all items, and for all of a seller: items lie in 64 shards, and a script sees one of them. So each shard has the
whole hash ``{s07}:rulings``, with these fields and values ``<flags>|<epoch>|<n>``:

    <user id>              for all items
    <user id>|<seller id>  for all of a seller
    *                      for everybody

A ruling is made in the shard that :func:`home_of` names, as entry ``(epoch, n)`` of its outbox; the others get
copies, and keep the newest. A ruling that was taken back stays for a while, with no flags, so that no older copy
brings it back.

Flags: ``A`` approved, ``B`` blocked; under ``*`` ``A`` means that everybody needs approval. Marks, in the item's hash
and in the shard's cursors, say whether a script has to look at all: ``A`` approval is needed, ``L`` there are
rulings, ``S`` there are spending limits (:mod:`shared.redis_layout.accounts`).
"""

from __future__ import annotations

import itertools
from typing import Final, NamedTuple

from shared import names

EVERYBODY: Final = "*"
"""No user id; the field for what concerns all bidders."""
APPROVED: Final = "A"
BLOCKED: Final = "B"
NEEDS_APPROVAL: Final = "A"
"""The mark of an item or of the house."""
LISTED: Final = "L"
"""The mark of an item or of a shard that has rulings on single bidders."""

RULED_PER_ITEM_MAX: Final = 10_000
"""The most bidders of an item with rulings."""
RULED_MAX: Final = 100_000
"""The most rulings of the house and of all sellers together."""
RULED_BY_SELLER_MAX: Final = 5_000
"""The most of these that one seller may have."""

ARCHIVED_CURSORS: Final = 2**40
"""Cursors of an item's rulings from this number on are those of the archive. The cursors of Redis are smaller, because
a hash with so few fields has fewer buckets. So an item that leaves Redis, or comes back, between two pages is read
anew, and none of its rulings is passed over."""

_HOUSES: Final = {
    shard: next(f"~{number}" for number in itertools.count() if names.shard_of(f"~{number}") == shard)
    for shard in names.SHARDS
}
HOUSES: Final = frozenset(_HOUSES.values())
"""Outbox entries without an item name this in place of an item's id. No item can have such an id."""


def house_of(shard: str) -> str:
    """The name that rulings in this shard's outbox have in place of an item's id."""
    return _HOUSES[shard]


def field_of(user_id: str, seller_id: str | None = None) -> str:
    """The field of a bidder, for all items or for those of a seller."""
    return user_id if seller_id is None else f"{user_id}|{seller_id}"


def bidder_of(field: str) -> tuple[str, str | None]:
    """The inverse of :func:`field_of`: the bidder, and the seller where it is about all of a seller's items."""
    user_id, bar, seller_id = field.partition("|")
    return user_id, seller_id if bar else None


def home_of(user_id: str) -> str:
    """The shard where rulings on a bidder are made."""
    return names.shard_of(user_id)


class ItemRuling(NamedTuple):
    """What was ruled on a bidder on one item; ``limit`` in minor units."""

    approved: bool = False
    blocked: bool = False
    limit: int | None = None

    def encode(self) -> str:
        """The value of a field."""
        return f"{_flags(self.approved, self.blocked)}|{'' if self.limit is None else self.limit}"

    @classmethod
    def decode(cls, value: bytes | None) -> ItemRuling:
        """Read the value of a field; None where there is none."""
        if value is None:
            return cls()
        flags, _, limit = value.decode().partition("|")
        return cls(APPROVED in flags, BLOCKED in flags, int(limit) if limit else None)


class HouseRuling(NamedTuple):
    """What was ruled on a bidder for all items, or for those of a seller, as entry ``(epoch, n)`` of its home."""

    approved: bool = False
    blocked: bool = False
    epoch: int = 0
    n: int = 0

    def encode(self) -> str:
        """The value of a field."""
        return f"{_flags(self.approved, self.blocked)}|{self.epoch}|{self.n}"

    @classmethod
    def decode(cls, value: bytes | None) -> HouseRuling:
        """Read the value of a field; None where there is none."""
        if value is None:
            return cls()
        flags, epoch, n = value.decode().split("|")
        return cls(APPROVED in flags, BLOCKED in flags, int(epoch), int(n))


def _flags(approved: bool, blocked: bool) -> str:
    return (APPROVED if approved else "") + (BLOCKED if blocked else "")
