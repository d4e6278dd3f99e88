"""An item as Redis keeps it (one hash), and as the public may see it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from shared.aliases import alias_of, public_id
from shared.domain.auction import State, Status, Terms, buy_now_offered, minimum_bid
from shared.domain.increments import Increment, decode_steps, encode_steps, suggested_bids
from shared.domain.money import exponent_of, format_amount
from shared.domain.soft_close import SoftClose
from shared.messages import EventBase
from shared.redis_layout.rulings import NEEDS_APPROVAL
from shared.timefmt import to_rfc3339


def amount_json(minor: int, currency: str) -> msgspec.Raw:
    """An amount as an exact JSON number with the currency's decimals, ready to be embedded by msgspec."""
    return msgspec.Raw(format_amount(minor, exponent_of(currency)).encode())


class ItemState(msgspec.Struct, frozen=True, kw_only=True):
    """Terms and state of one item, read from its hash in one command, so it is one consistent moment.

    ``image_urls``: addresses of its images, in order. ``returned_us``: when the item came back to Redis, or a bid of
    the closed item was struck; None before either.
    """

    terms: Terms
    state: State
    name: str
    description: str
    original_end_us: int | None
    created_us: int
    updated_us: int
    returned_us: int | None = None
    image_urls: tuple[str, ...] = ()

    @property
    def version(self) -> tuple[int, int]:
        """``(epoch, seq)``; the higher one is the newer one."""
        return (self.state.epoch, self.state.seq)

    @property
    def min_next_bid(self) -> int:
        """The least next bid in minor units."""
        return minimum_bid(self.terms, self.state)


def _optional(text: bytes | None) -> int | None:
    return int(text) if text else None


def decode_item(fields: Mapping[bytes, bytes]) -> ItemState:
    """The item of an HGETALL answer that is not empty.

    Raises:
        KeyError, ValueError: the hash was not written by this platform.
    """
    terms = Terms(
        item_id=fields[b"id"].decode(),
        start_us=int(fields[b"start_us"]),
        currency=fields[b"currency"].decode(),
        seller_id=fields[b"seller_id"].decode() or None,
        start_price=int(fields[b"start_price"]),
        reserve_price=_optional(fields[b"reserve_price"]),
        buy_now_price=_optional(fields[b"buy_now_price"]),
        increment=Increment(
            fields[b"increment_kind"].decode(),  # type: ignore[arg-type]
            int(fields[b"increment_value"]),
            decode_steps(fields[b"increment_steps"].decode()),
        ),
        # The end as first agreed; the state has the end that a soft close or a pause moved.
        end_us=_optional(fields[b"original_end_us"]),
        soft_close=_decode_soft_close(fields),
        approval_required=NEEDS_APPROVAL in fields.get(b"rulings", b"").decode(),
    )
    state = State(
        status=Status(fields[b"status"].decode()),
        price=int(fields[b"price"]),
        leader=fields[b"leader"].decode() or None,
        leader_max=int(fields[b"leader_max"]),
        runner_up=int(fields[b"runner_up"]),
        bid_count=int(fields[b"bid_count"]),
        seq=int(fields[b"seq"]),
        epoch=int(fields[b"epoch"]),
        end_us=_optional(fields[b"end_us"]),
        hard_end_us=_optional(fields[b"hard_end_us"]),
        paused_us=_optional(fields[b"paused_us"]),
        extensions=int(fields[b"extensions"]),
        # The field is absent while nobody has moved the end.
        moved_us=int(fields.get(b"moved_us", 0)),
        reserve_met=fields[b"reserve_met"] == b"1",
    )
    return ItemState(
        terms=terms,
        state=state,
        name=fields[b"name"].decode(),
        description=fields[b"description"].decode(),
        original_end_us=terms.end_us,
        created_us=int(fields[b"created_us"]),
        updated_us=int(fields[b"updated_us"]),
        returned_us=_optional(fields.get(b"returned_us")),
        # An item of a version without images has no such field.
        image_urls=tuple(fields.get(b"image_urls", b"").decode().split()),
    )


def _decode_soft_close(fields: Mapping[bytes, bytes]) -> SoftClose | None:
    if not fields[b"soft_trigger_us"]:
        return None
    return SoftClose(
        trigger_us=int(fields[b"soft_trigger_us"]),
        extend_us=int(fields[b"soft_extend_us"]),
        mode=fields[b"soft_mode"].decode(),  # type: ignore[arg-type]
        max_count=int(fields[b"soft_max_count"]),
        hard_end_us=_optional(fields[b"hard_end_us"]),
    )


def item_fields(terms: Terms, *, name: str, description: str, image_urls: Sequence[str] = ()) -> dict[str, str]:
    """The constant fields of the hash, as ``open_item.lua`` writes them; an absent value is the empty string.

    Addresses of images have no blanks, so blanks stand between them.
    """
    soft = terms.soft_close

    def text(value: int | str | None) -> str:
        return "" if value is None else str(value)

    return {
        "currency": terms.currency,
        "seller_id": text(terms.seller_id),
        "start_price": str(terms.start_price),
        "reserve_price": text(terms.reserve_price),
        "buy_now_price": text(terms.buy_now_price),
        "increment_kind": terms.increment.kind,
        "increment_value": str(terms.increment.value),
        "increment_steps": encode_steps(terms.increment),
        "soft_trigger_us": text(soft.trigger_us) if soft else "",
        "soft_extend_us": text(soft.extend_us) if soft else "",
        "soft_mode": soft.mode if soft else "",
        "soft_max_count": text(soft.max_count) if soft else "",
        "hard_end_us": text(soft.hard_end_us) if soft else "",
        "paused_us": "",
        "rulings": NEEDS_APPROVAL if terms.approval_required else "",
        # Last, since no bid reads them: Redis looks through the fields of a small hash one after the other.
        "name": name,
        "description": description,
        "image_urls": " ".join(image_urls),
    }


SUGGESTIONS: Final = 3
_PERCENT_DECIMALS: Final = 2
_SECOND_US: Final = 1_000_000


def public_item(item: ItemState) -> dict[str, Any]:
    """The item as anybody may see it: amounts as exact JSON numbers, times as RFC 3339, nothing hidden in it.

    The reserve and every maximum stay hidden: it tells only whether there is a reserve, and whether it is met.
    """
    terms, state = item.terms, item.state

    def amount(minor: int) -> msgspec.Raw:
        return amount_json(minor, terms.currency)

    def instant(us: int | None) -> str | None:
        return None if us is None else to_rfc3339(us)

    minimum = item.min_next_bid
    return {
        "id": terms.item_id,
        "name": item.name,
        "description": item.description,
        "image_urls": item.image_urls,
        "currency": terms.currency,
        "seller_id": terms.seller_id,
        "start_price": amount(terms.start_price),
        "current_bid": amount(state.price),
        "highest_bidder_id": None if state.leader is None else public_id(terms.item_id, state.leader, item.created_us),
        "highest_bidder": None if state.leader is None else alias_of(terms.item_id, state.leader, item.created_us),
        "status": state.status.value,
        "start_time": instant(terms.start_us),
        "end_time": instant(state.end_us),
        "original_end_time": instant(item.original_end_us),
        "created_at": instant(item.created_us),
        "updated_at": instant(item.updated_us),
        "seq": state.seq,
        "epoch": state.epoch,
        "bid_count": state.bid_count,
        "min_next_bid": amount(minimum),
        "suggested_bids": [amount(bid) for bid in suggested_bids(minimum, terms.increment, count=SUGGESTIONS)],
        "has_reserve": terms.reserve_price is not None,
        "reserve_met": state.reserve_met,
        "increment": _public_increment(terms),
        "soft_close": _public_soft_close(terms.soft_close, state.hard_end_us),
        "buy_now_price": None if terms.buy_now_price is None else amount(terms.buy_now_price),
        "buy_now_available": buy_now_offered(terms, state) and not state.status.is_final,
        "approval_required": terms.approval_required,
    }


def _public_increment(terms: Terms) -> dict[str, Any]:
    """In the form in which an item is created: the last step of a ladder has no ``below``."""
    increment = terms.increment
    if increment.kind == "percent":
        return {"kind": "percent", "value": msgspec.Raw(format_amount(increment.value, _PERCENT_DECIMALS).encode())}
    value = amount_json(increment.value, terms.currency)
    if increment.kind == "flat":
        return {"kind": "flat", "value": value}
    steps = [
        {"below": amount_json(below, terms.currency), "increment": amount_json(step, terms.currency)}
        for below, step in increment.steps
    ]
    return {"kind": "ladder", "steps": [*steps, {"increment": value}]}


def _public_soft_close(rule: SoftClose | None, hard_end_us: int | None) -> dict[str, Any] | None:
    """``hard_end_us`` is the one that holds now: a pause moves it."""
    if rule is None:
        return None
    return {
        "trigger_s": rule.trigger_us // _SECOND_US,
        "extend_s": rule.extend_us // _SECOND_US,
        "mode": rule.mode,
        "max_count": rule.max_count or None,
        "hard_end": None if hard_end_us is None else to_rfc3339(hard_end_us),
    }


def public_event_state(event: EventBase, created_us: int | None) -> dict[str, Any]:
    """The state that every live frame carries, from an event. ``created_us``: when the item was created, for
    :func:`shared.aliases.alias_of`."""
    leader = event.highest_bidder_id
    return {
        "item_id": event.item_id,
        "epoch": event.epoch,
        "seq": event.seq,
        "timestamp": to_rfc3339(event.ts_us),
        "current_bid": amount_json(event.current_bid, event.currency),
        "highest_bidder_id": None if leader is None else public_id(event.item_id, leader, created_us),
        "highest_bidder": None if leader is None else alias_of(event.item_id, leader, created_us),
        "bid_count": event.bid_count,
        "min_next_bid": amount_json(event.min_next_bid, event.currency),
        "status": event.status,
        "end_time": None if event.end_us is None else to_rfc3339(event.end_us),
        "reserve_met": event.reserve_met,
        "currency": event.currency,
    }
