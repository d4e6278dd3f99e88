"""What a seller sends, made an item: checked, in minor units and microseconds."""

from __future__ import annotations

import secrets
from typing import Final

import msgspec

from api_gateway.contract.schemas import (
    HAS_CONTROL,
    HAS_CONTROL_BUT_LINES,
    USER_ID_RULE,
    IncrementBody,
    NewItemBody,
    SoftCloseBody,
    decode_body,
    optional_amount,
)
from api_gateway.engine.creation.new_item import NewItem
from api_gateway.identity.access import Permit
from api_gateway.images.addresses import checked_urls
from shared import names
from shared.domain.auction import Terms
from shared.domain.errors import InvalidInput, TermsInvalid
from shared.domain.increments import BASIS_POINTS, Increment, default_ladder
from shared.domain.money import MINOR_MAX, exponent_of
from shared.domain.soft_close import SoftClose
from shared.timefmt import INSTANT_MAX_US, from_rfc3339

_PERCENT_DECIMALS: Final = 2
_SECOND_US: Final = 1_000_000
_decoder: Final = msgspec.json.Decoder(NewItemBody)


def checked_item_id(item_id: str) -> str:
    """Raises InvalidInput where no item can have it."""
    if not names.is_item_id(item_id):
        raise InvalidInput("item id: 1 to 64 characters of A-Z a-z 0-9 _ -")
    return item_id


def read_new_item(body: bytes, permit: Permit, image_hosts: frozenset[str]) -> NewItem:
    """The item in the body of a request; ``permit`` says for which seller it may be. The images are not looked for.

    Raises as :func:`new_item`, InvalidInput where it is no such body, and Forbidden where the seller is somebody else.
    """
    sent = decode_body(_decoder, body)
    sent.seller_id = permit.user(sent.seller_id, "seller_id")
    return new_item(sent, image_hosts)


def new_item(body: NewItemBody, image_hosts: frozenset[str] = frozenset()) -> NewItem:
    """The item of a request. ``image_hosts``: other hosts on which its images may be.

    Raises:
        TermsInvalid, AmountInvalid, CurrencyUnknown, InvalidInput: says which member and why.
    """
    exponent = exponent_of(body.currency)
    item_id = body.id if body.id is not None else f"item-{secrets.token_hex(8)}"
    if body.seller_id is not None and not names.is_user_id(body.seller_id):
        raise InvalidInput(f"seller_id, as {USER_ID_RULE}")
    if body.end_time is not None and body.duration_s is not None:
        raise TermsInvalid("end_time", "send end_time or duration_s, not both")
    if not body.name.strip():
        raise TermsInvalid("name", "must not be blank")
    if HAS_CONTROL.search(body.name):
        raise TermsInvalid("name", "must not hold control characters, such as line breaks")
    if HAS_CONTROL_BUT_LINES.search(body.description):
        raise TermsInvalid("description", "must not hold control characters other than tabs and line breaks")
    start_us = instant_of("start_time", body.start_time)
    # An end that is counted from the start is computed by Redis; for checking the terms any start will do.
    length_us = None if body.duration_s is None else body.duration_s * _SECOND_US
    end_us = instant_of("end_time", body.end_time) if length_us is None else (start_us or 0) + length_us
    terms = Terms(
        item_id=checked_item_id(item_id),
        start_us=start_us or 0,
        currency=body.currency,
        seller_id=body.seller_id,
        start_price=optional_amount(body.start_price, exponent, "start_price", minimum_minor=0) or 0,
        reserve_price=optional_amount(body.reserve_price, exponent, "reserve_price"),
        buy_now_price=optional_amount(body.buy_now_price, exponent, "buy_now_price"),
        increment=_increment(body.increment, exponent),
        end_us=end_us,
        soft_close=_soft_close(body.soft_close, is_relative=length_us is not None),
        approval_required=body.approval_required,
    )
    return NewItem(
        terms,
        body.name,
        body.description,
        checked_urls(body.image_urls, image_hosts),
        start_us=start_us,
        length_us=length_us,
        id_is_random=body.id is None,
    )


def instant_of(field: str, text: str | None) -> int | None:
    """An instant of a request in microseconds.

    Raises:
        TermsInvalid: it is none, or not between 1970 and 2100.
    """
    if text is None:
        return None
    try:
        instant_us = from_rfc3339(text)
    except ValueError as error:
        raise TermsInvalid(field, f"{error}; use RFC 3339, for example 2030-01-31T18:00:00Z") from None
    if not 0 <= instant_us <= INSTANT_MAX_US:
        raise TermsInvalid(field, "must be between 1970 and 2100")
    return instant_us


def _increment(body: IncrementBody | None, exponent: int) -> Increment:
    if body is None:
        return Increment()
    if body.kind != "ladder" and body.steps is not None:
        raise TermsInvalid("increment", "only a ladder has steps")
    if body.kind == "percent":
        value = optional_amount(body.value, _PERCENT_DECIMALS, "increment")
        if value is None or value > BASIS_POINTS:
            raise TermsInvalid("increment", "a percent increment needs a value of more than 0 and at most 100")
        return Increment("percent", value)
    value = optional_amount(body.value, exponent, "increment")
    if body.kind == "flat":
        return Increment("flat", 1 if value is None else value)
    if value is not None:
        raise TermsInvalid("increment", "a ladder has steps, not a value")
    return default_ladder(exponent) if body.steps is None else _ladder(body, exponent)


def _ladder(body: IncrementBody, exponent: int) -> Increment:
    steps = [
        (optional_amount(step.below, exponent, "increment"), _step_amount(step.increment, exponent))
        for step in body.steps or []
    ]
    if not steps or steps[-1][0] is not None or any(below is None for below, _ in steps[:-1]):
        raise TermsInvalid("increment", "every step but the last needs `below`, and the last must not have one")
    return Increment("ladder", steps[-1][1], tuple((below or MINOR_MAX, step) for below, step in steps[:-1]))


def _step_amount(literal: msgspec.Raw, exponent: int) -> int:
    amount = optional_amount(literal, exponent, "increment")
    if amount is None:
        raise TermsInvalid("increment", "every step needs an increment")
    return amount


def _soft_close(body: SoftCloseBody | None, *, is_relative: bool) -> SoftClose | None:
    if body is None:
        return None
    if is_relative and body.hard_end is not None:
        raise TermsInvalid("soft_close", "hard_end needs an end_time; it cannot be combined with duration_s")
    return SoftClose(
        trigger_us=body.trigger_s * _SECOND_US,
        extend_us=body.extend_s * _SECOND_US,
        mode=body.mode,
        max_count=body.max_count or 0,
        hard_end_us=instant_of("soft_close.hard_end", body.hard_end),
    )
