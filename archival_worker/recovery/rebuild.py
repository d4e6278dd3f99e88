"""Makes an item, as Redis must have it, from what the archive knows about it. Pure.

What comes back: the terms, the whole state with its hidden maxima, the newest events, and the verdicts of accepted
bids, word for word, also under Idempotency-Keys. What no event tells is in the sealed facts (:mod:`shared.sealed`).

What does not come back:

- *Refusals.* A refused bid that is repeated is decided again.
- *The time in between.* An item whose end has passed meanwhile closes at once.
- *Maxima from before there were sealed facts.* The leader's maximum is then the visible price.

The item keeps its ``seq`` and gets a higher epoch. So the next event is ``(epoch, seq + 1)``: higher than everything
that anybody was ever shown, and ``seq`` goes on without a gap.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

import msgspec

from shared import names
from shared.archive_reads.items import Row, Turns, hard_end_of, terms_of
from shared.domain.auction import Status, Terms
from shared.domain.errors import TermsInvalid
from shared.domain.increments import next_minimum
from shared.domain.maxima import Maxima
from shared.domain.voiding import answers, bids_anew
from shared.messages import (
    AnyEvent,
    AuctionExtended,
    BidAccepted,
    BidVoided,
    decode_any_event,
    encode_event,
)
from shared.redis_layout.accepted_log import archived_entry, encode_entry
from shared.redis_layout.item_hash import item_fields
from shared.redis_layout.limits import VERDICT_KEEP_S
from shared.redis_layout.stored_verdicts import (
    StoredVerdict,
    field_of_bid_id,
    field_of_first,
    field_of_other,
    fingerprint_of,
)
from shared.redis_layout.verdicts import AcceptedBid


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What is to be written for one item.

    Attributes:
        fields: the item's hash.
        maxima: bidders' standing maxima.
        bidders: how many accepted bids of each person stand.
        accepted: the log of its newest accepted bids, oldest first.
        recent: its newest events as JSON, newest first.
        deadline_us: when the closer must look at it; None for never.
        verdicts_until_us: until when its verdicts are kept; None if it may still take bids.
        fault: why it could not be rebuilt as it was, else None. Then it is paused, for an operator to decide.
    """

    item_id: str
    fields: dict[str, str]
    maxima: dict[str, int]
    bidders: dict[str, int]
    accepted: list[str]
    recent: list[bytes]
    deadline_us: int | None
    verdicts_until_us: int | None = None
    fault: str | None = None


@dataclass(frozen=True, slots=True)
class Answered:
    """The verdict of one accepted bid, and its possible fields: it goes into the first one that is free."""

    item_id: str
    fields: tuple[str, ...]
    verdict: StoredVerdict


def maxima_of(fact: Row) -> Maxima:
    """The maxima of a row of ``read_standing``."""
    return Maxima(fact["leader_id"] or "", fact["leader_max"], fact["runner_up"])


def maxima_after(before: Maxima, bid: Row) -> Maxima:
    """The maxima after a bid without a maximum, a row of ``read_bids_after``."""
    return before.after(bid["user_id"], bid["amount"], bid["kind"], leads=bid["leader_id"] is None)


@dataclass(frozen=True, slots=True)
class Hidden:
    """What the archive knows of an item and not everybody may see.

    ``standing`` None: no bid of the item ever had a maximum. ``maxima``: by bidder.
    """

    standing: Maxima | None = None
    maxima: Mapping[str, int] = field(default_factory=dict)

    def standing_of(self, row: Row) -> Maxima:
        """The standing that goes with a row of ``read_items``."""
        leader, price = row["highest_bidder_id"] or "", row["current_bid"]
        if self.standing is not None and self.standing.leader == leader:
            return self.standing
        # Without maxima each bid is its own maximum. So too if a message is a dead letter, and the facts do not fit.
        return Maxima(leader, price, row["runner_up"]) if leader else Maxima("", 0, 0)


NOTHING_HIDDEN: Final = Hidden()
NO_BIDDERS: Final[Mapping[str, int]] = MappingProxyType({})


def terms_or_default(row: Row) -> tuple[Terms, str | None]:
    """The terms of a row of ``read_items`` and None; if they are not archived, default terms and what is wrong."""
    try:
        return terms_of(row), None
    except (TermsInvalid, ValueError, TypeError, msgspec.DecodeError) as error:
        return Terms(item_id=row["item_id"], start_us=row["updated_us"], currency=row["currency"]), str(error)


def rebuild(
    row: Row,
    turns: Turns,
    log: Sequence[Row],
    epoch: int,
    *,
    hidden: Hidden = NOTHING_HIDDEN,
    bidders: Mapping[str, int] = NO_BIDDERS,
    accepted: Sequence[Row] = (),
) -> Rebuilt:
    """The item of a row of ``read_items``, after ``turns``, with its rows of ``read_log``, newest first.

    ``bidders``: how many accepted bids of each person stand; ``accepted``: its rows of ``read_accepted``.
    Never raises if something is missing in the archive: the item comes back paused, with its ``fault``.
    """
    terms, fault = terms_or_default(row)
    status = Status(row["status"])
    if fault is not None and not status.is_final:
        # A bid under unknown terms would be wrong, and a missing item would be created again, at zero.
        status = Status.PAUSED
    paused_us = (turns.paused_us or row["updated_us"]) if status is Status.PAUSED else None
    standing = hidden.standing_of(row)
    fields = item_fields(terms, name=row["name"], description=row["description"]) | {
        "id": row["item_id"],
        "status": status.value,
        "epoch": str(epoch),
        "seq": str(row["seq"]),
        "price": str(row["current_bid"]),
        "leader": standing.leader,
        "leader_max": str(standing.leader_max),
        "runner_up": str(standing.runner_up),
        "bid_count": str(row["bid_count"]),
        "bids_counted": str(sum(bidders.values())),
        "accepted": str(accepted[-1]["position"] if accepted else 0),
        "voids": str(row["voids"]),
        "reserve_met": "1" if row["reserve_met"] else "0",
        "extensions": str(turns.extensions),
        "start_us": str(terms.start_us),
        "end_us": _text(row["end_us"]),
        "original_end_us": _text(terms.end_us),
        "hard_end_us": _text(hard_end_of(terms, turns)),
        "paused_us": _text(paused_us),
        "created_us": str(row["created_us"] or row["updated_us"]),
        "updated_us": str(row["updated_us"]),
        "keeps_verdicts": "1",
    }
    deadline_us = {Status.SCHEDULED: terms.start_us, Status.OPEN: row["end_us"]}.get(status)
    recent = [encode_event(event) for event in recent_events(row, terms, log)]
    verdicts_until_us = row["updated_us"] + VERDICT_KEEP_S * 1_000_000 if status.is_final else None
    return Rebuilt(
        item_id=row["item_id"],
        fields=fields,
        maxima=dict(hidden.maxima),
        bidders=dict(bidders),
        accepted=[encode_entry(archived_entry(entry, entry["position"])) for entry in accepted],
        recent=recent,
        deadline_us=deadline_us,
        verdicts_until_us=verdicts_until_us,
        fault=fault,
    )


def _text(value: int | None) -> str:
    return "" if value is None else str(value)


def recent_events(row: Row, terms: Terms, log: Sequence[Row]) -> list[AnyEvent]:
    """The item's newest events as they were on the wire, newest first.

    The archive keeps the whole body of every event but bids. Most of a bid's public state is in its row. The bid count
    and the end are worked out backwards, from the item's present state and the events around the bid.
    """
    events: list[AnyEvent] = []
    bid_count, end_us = row["bid_count"], row["end_us"]
    for entry, older in itertools.zip_longest(log, log[1:]):
        event: AnyEvent
        if entry["body"] is not None:
            event = decode_any_event(entry["body"].encode())
            bid_count, end_us = event.bid_count, event.end_us
            if isinstance(event, AuctionExtended):
                end_us = event.previous_end_us
            elif isinstance(event, BidVoided) and event.previous_bid_count is not None:
                bid_count = event.previous_bid_count
            elif isinstance(event, BidVoided):
                bid_count += not event.bid_id.endswith(answers(""))
        else:
            event = _bid_event(row, terms, entry, bid_count=bid_count, end_us=end_us)
            if older is not None and older["body"] is not None and event.bid_id.endswith(bids_anew("")):
                # It follows a void and has that event's status: the item may have been paused.
                event = msgspec.structs.replace(event, status=decode_any_event(older["body"].encode()).status)
            bid_count -= event.kind != "proxy"
        events.append(event)
    return events


def _bid_event(row: Row, terms: Terms, bid: Row, *, bid_count: int, end_us: int | None) -> BidAccepted:
    amount = bid["amount"]
    return BidAccepted(
        item_id=row["item_id"],
        epoch=bid["epoch"],
        seq=bid["seq"],
        ts_us=bid["ts_us"],
        bid_id=bid["bid_id"],
        user_id=bid["user_id"],
        kind=bid["kind"],
        amount=amount,
        previous_bid=bid["previous_bid"],
        current_bid=amount,
        highest_bidder_id=bid["leader_id"] or bid["user_id"],
        bid_count=bid_count,
        min_next_bid=next_minimum(amount, terms.increment),
        status="sold" if bid["kind"] == "buy_now" else "open",
        end_us=end_us,
        reserve_met=_meets_reserve(terms, amount),
        currency=terms.currency,
    )


def _meets_reserve(terms: Terms, price: int) -> bool:
    return terms.reserve_price is None or price >= terms.reserve_price


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
        reserve_met=_meets_reserve(terms, price),
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
