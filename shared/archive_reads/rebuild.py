"""Makes an item, as Redis must have it, from what the archive knows about it. Pure.

What comes back: the terms, the whole state with its hidden maxima, the newest events, what was ruled on bidders, and
the verdicts of accepted bids, word for word, also under Idempotency-Keys. What no event tells is in the sealed facts
(:mod:`shared.sealed`).

What does not come back:

- *Refusals.* A refused bid that is repeated is decided again.
- *The time in between.* An item whose end has passed meanwhile closes at once.
- *Maxima from before there were sealed facts.* The leader's maximum is then the visible price.

The item keeps its ``seq`` and gets a higher epoch. So the next event is ``(epoch, seq + 1)``: higher than everything
that anybody was ever shown, and ``seq`` goes on without a gap.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

import msgspec

from shared.archive_reads.events import recent_events
from shared.archive_reads.items import Row, Turns, hard_end_of, terms_of
from shared.domain.auction import Status, Terms
from shared.domain.errors import TermsInvalid
from shared.domain.maxima import Maxima
from shared.messages import encode_event
from shared.redis_layout.accepted_log import archived_entry, encode_entry
from shared.redis_layout.item_hash import item_fields
from shared.redis_layout.limits import VERDICT_KEEP_S
from shared.redis_layout.rulings import LISTED, NEEDS_APPROVAL, ItemRuling


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
        updated_us: of its last event.
        rulings: what was ruled on bidders, as the fields of their hash.
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
    updated_us: int
    rulings: Mapping[str, str] = field(default_factory=dict)
    verdicts_until_us: int | None = None
    fault: str | None = None


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
        # Without maxima each bid is its own maximum. The same is assumed if a message became a dead letter, so that the
        # facts do not fit.
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
    rulings: Sequence[Row] = (),
) -> Rebuilt:
    """The item of a row of ``read_items``, after ``turns``, with its rows of ``read_log``, newest first.

    ``bidders``: how many accepted bids of each person stand; ``accepted``, ``rulings``: its rows of ``read_accepted``
    and ``read_rulings``.
    Never raises if something is missing in the archive: the item comes back paused, with its ``fault``.
    """
    terms, fault = terms_or_default(row)
    status = Status(row["status"])
    if fault is not None and not status.is_final:
        # A bid under unknown terms would be wrong, and a missing item would be created again, at zero.
        status = Status.PAUSED
    paused_us = (turns.paused_us or row["updated_us"]) if status is Status.PAUSED else None
    standing = hidden.standing_of(row)
    ruled = {each["user_id"]: ItemRuling(each["approved"], each["blocked"], each["max_amount"]) for each in rulings}
    ruled = {user_id: ruling for user_id, ruling in ruled.items() if ruling != ItemRuling()}
    texts = item_fields(terms, name=row["name"], description=row["description"], image_urls=row["image_urls"])
    fields = texts | {
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
        "rulings": (NEEDS_APPROVAL if terms.approval_required else "") + (LISTED if ruled else ""),
    }
    if turns.moved_us:
        fields |= {"moved_us": str(turns.moved_us), "move_requests": " ".join(turns.move_requests)}
    deadline_us = {Status.SCHEDULED: terms.start_us, Status.OPEN: row["end_us"]}.get(status)
    recent = [encode_event(event) for event in recent_events(terms, row["bid_count"], row["end_us"], log)]
    verdicts_until_us = row["closed_us"] + VERDICT_KEEP_S * 1_000_000 if status.is_final else None
    return Rebuilt(
        item_id=row["item_id"],
        fields=fields,
        maxima=dict(hidden.maxima),
        bidders=dict(bidders),
        accepted=[encode_entry(archived_entry(entry, entry["position"])) for entry in accepted],
        recent=recent,
        deadline_us=deadline_us,
        updated_us=row["updated_us"],
        rulings={user_id: ruling.encode() for user_id, ruling in ruled.items()},
        verdicts_until_us=verdicts_until_us,
        fault=fault,
    )


def _text(value: int | None) -> str:
    return "" if value is None else str(value)
