"""An item out of its row in the archive. Pure.

The archive has all of an item's public state: the row has most of it, and its events the rest (how often it was
extended, and how far pauses have moved the hard end).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import msgspec

from shared.domain.auction import State, Status, Terms
from shared.domain.errors import TermsInvalid
from shared.domain.increments import Increment, decode_steps
from shared.domain.soft_close import SoftClose
from shared.redis_layout.item_hash import ItemState

Row = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Turns:
    """What pauses and extensions have done to an item so far.

    ``shift_us``: by how much pauses have moved the hard end. ``paused_us``: since when it is paused.
    ``moved_us``, ``move_requests``: as the item's hash has them (:mod:`shared.redis_layout.end_moves`).
    """

    extensions: int = 0
    shift_us: int = 0
    paused_us: int | None = None
    moved_us: int = 0
    move_requests: tuple[str, ...] = ()


def terms_of(row: Row) -> Terms:
    """The terms of an item's row.

    Raises:
        TermsInvalid, ValueError, msgspec.DecodeError: they are missing (as its `created` event is), or are not valid.
    """
    if row["created_us"] is None:
        raise TermsInvalid("terms", "are not archived: the item's `created` event is missing")
    soft = msgspec.json.decode(row["soft_close"], type=SoftClose) if row["soft_close"] else None
    return Terms(
        item_id=row["item_id"],
        start_us=row["start_us"],
        currency=row["currency"],
        seller_id=row["seller_id"],
        start_price=row["start_price"],
        reserve_price=row["reserve_price"],
        buy_now_price=row["buy_now_price"],
        increment=Increment(row["increment_kind"], row["increment_value"], decode_steps(row["increment_steps"])),
        end_us=row["original_end_us"],
        soft_close=soft,
        approval_required=row["approval_required"],
    )


def hard_end_of(terms: Terms, turns: Turns) -> int | None:
    """The instant past which the soft close never moved the end, shifted as pauses and operators have moved it."""
    agreed_us = terms.soft_close.hard_end_us if terms.soft_close else None
    return None if agreed_us is None else agreed_us + turns.shift_us + turns.moved_us


def closed_item(row: Row) -> ItemState:
    """The item of a row of ``read_closed``, as Redis had it, without its maxima.

    Raises:
        as :func:`terms_of`.
    """
    terms, turns = terms_of(row), Turns(row["extensions"], row["shift_us"], moved_us=row["moved_us"])
    state = State(
        status=Status(row["status"]),
        price=row["current_bid"],
        leader=row["highest_bidder_id"],
        bid_count=row["bid_count"],
        seq=row["seq"],
        epoch=row["epoch"],
        end_us=row["end_us"],
        hard_end_us=hard_end_of(terms, turns),
        extensions=turns.extensions,
        moved_us=turns.moved_us,
        reserve_met=row["reserve_met"],
    )
    return ItemState(
        terms=terms,
        state=state,
        name=row["name"],
        description=row["description"],
        original_end_us=terms.end_us,
        created_us=row["created_us"],
        updated_us=row["updated_us"],
        image_urls=tuple(row["image_urls"]),
    )


def without_reserve(item: ItemState) -> ItemState:
    """The item without its reserve price: it tells only that there is one. For copies that leave this process."""
    terms = item.terms
    if terms.reserve_price is None:
        return item
    least = max(terms.start_price, 1)
    return msgspec.structs.replace(item, terms=replace(terms, reserve_price=least))
