"""The verdicts of accepted bids out of the archive, word for word as ``place_bids.lua`` stored them. Pure.

Verdicts of refused bids are not archived.
"""

from __future__ import annotations

from dataclasses import dataclass

from shared import names
from shared.archive_reads.events import meets_reserve
from shared.archive_reads.items import Row
from shared.domain.auction import Terms
from shared.domain.increments import next_minimum
from shared.domain.voiding import answers
from shared.redis_layout.stored_verdicts import (
    StoredVerdict,
    field_of_bid_id,
    field_of_first,
    field_of_other,
    fingerprint_of,
)
from shared.redis_layout.verdicts import AcceptedBid


@dataclass(frozen=True, slots=True)
class Answered:
    """The verdict of one accepted bid, and its possible fields: it goes into the first one that is free."""

    item_id: str
    fields: tuple[str, ...]
    verdict: StoredVerdict


def answered(bid: Row, follower: Row | None, terms: Terms) -> Answered | None:
    """The verdict of an archived bid, as ``place_bids.lua`` stored it.

    None for an automatic bid, and for one whose id a gateway made: it came without a key, so nobody can repeat it.

    Args:
        bid: a row of ``read_answered_bids``.
        follower: the row after it, which may be the automatic bid that answered it in the same step.
        terms: of its item.
    """
    if bid["kind"] == "proxy" or names.is_made_bid_id(bid["bid_id"]):
        return None
    price = amount = bid["amount"]
    if follower is not None and (follower["item_id"], follower["bid_id"]) == (bid["item_id"], answers(bid["bid_id"])):
        price = follower["amount"]
    verdict = AcceptedBid(
        bid_id=bid["bid_id"],
        seq=bid["seq"],
        current_bid=price,
        your_bid=amount,
        leads=bid["leader_id"] is None,
        min_next_bid=next_minimum(price, terms.increment),
        reserve_met=meets_reserve(terms, price),
        kind=bid["kind"],
        epoch=bid["epoch"],
        ts_us=bid["ts_us"],
    )
    stored = StoredVerdict(bid["user_id"], fingerprint_of(amount, None), verdict.encode())
    return Answered(bid["item_id"], (field_of_bid_id(bid["bid_id"]),), stored)


def sealed_answer(fact: Row) -> Answered:
    """The verdict of a row of ``read_sealed_answers``, with the fingerprint of what its bidder asked for."""
    asked = fingerprint_of(fact["amount"], fact["max_amount"])
    user_id, bid_id, key = fact["user_id"], fact["bid_id"], fact["key"]
    # A header key may look like anything, even like the id that the gateway made for the same bid.
    is_bid_id = key == bid_id and not names.is_made_bid_id(bid_id)
    fields = (field_of_bid_id(key),) if is_bid_id else (field_of_first(key), field_of_other(user_id, key))
    return Answered(fact["item_id"], fields, StoredVerdict(user_id, asked, fact["verdict"].encode()))
