"""Bodies of requests and answers. One definition serves for decoding and for OpenAPI.

Amounts in requests stay the raw text of the JSON number (see :mod:`shared.domain.money`); in answers they are exact
JSON numbers with the currency's decimals.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import UNSET, Meta, Raw, UnsetType

from shared import names
from shared.domain.errors import AmountInvalid
from shared.domain.money import parse_amount

_amount = Meta(extra_json_schema={"type": "number", "exclusiveMinimum": 0, "example": 12.5})
_price = Meta(extra_json_schema={"type": "number", "minimum": 0, "example": 12.5})
Amount = Annotated[Raw, _amount]
Price = Annotated[Raw, _price]
Instant = Annotated[str, Meta(extra_json_schema={"format": "date-time", "example": "2030-01-31T18:00:00Z"})]
UserId = Annotated[str, Meta(extra_json_schema={"pattern": names.USER_ID_PATTERN, "example": "ada"})]
ItemId = Annotated[str, Meta(extra_json_schema={"pattern": names.ITEM_ID_PATTERN, "example": "demo-1"})]
BidId = Annotated[str, Meta(extra_json_schema={"pattern": names.BID_ID_PATTERN})]

NULL: Final = Raw(b"null")
"""What an optional amount holds where the client sent null; UNSET where it sent nothing."""


class BidRequest(msgspec.Struct, gc=False):
    """A bid: an amount, a hidden maximum up to which the platform bids for you, or both.

    A client-made `bid_id`, or the header Idempotency-Key, makes the request safe to repeat.
    """

    user_id: UserId
    amount: Amount | UnsetType = UNSET
    max_amount: Amount | UnsetType = UNSET
    bid_id: BidId | None = None


def optional_amount(literal: Raw | UnsetType, exponent: int, field: str, *, minimum_minor: int = 1) -> int | None:
    """The minor units of the amount in member ``field`` of a request, None where it is absent or null.

    Raises:
        AmountInvalid: it is there and no amount of a currency with ``exponent`` decimals.
    """
    if literal is UNSET or literal == NULL:
        return None
    try:
        return parse_amount(bytes(literal).decode("latin-1"), exponent, minimum_minor=minimum_minor)
    except AmountInvalid as error:
        raise AmountInvalid(error.literal, error.reason, field) from None


class BidAcceptedAnswer(msgspec.Struct):
    """201: the bid counts, and has the sequence number `seq`. `is_highest` says whether you lead right after it."""

    success: Literal[True]
    message: str
    current_bid: Price
    your_bid: Price
    is_highest: bool
    event_id: str
    bid_id: BidId
    seq: int
    min_next_bid: Price
    reserve_met: bool


class BidRefusedAnswer(msgspec.Struct):
    """200: the rules refused the bid, and nothing changed.

    Codes: NOT_STARTED, CLOSED, PAUSED, CANCELLED, SOLD, OWN_ITEM, TOO_LOW, MAX_NOT_RAISED.
    """

    success: Literal[False]
    code: str
    message: str
    current_bid: Price
    your_bid: Price | None
    is_highest: bool
    min_next_bid: Price
    you_lead: bool
    reserve_met: bool


class StepBody(msgspec.Struct, forbid_unknown_fields=True):
    """One step of a ladder: below this price, this increment; the last step has no `below`."""

    increment: Amount
    below: Amount | UnsetType = UNSET


class IncrementBody(msgspec.Struct, forbid_unknown_fields=True):
    """`flat`: value is an amount. `percent`: value is a percentage with at most two decimals. `ladder`: steps, or
    eBay's."""

    kind: Literal["flat", "percent", "ladder"]
    value: Amount | UnsetType = UNSET
    steps: list[StepBody] | None = None


class SoftCloseBody(msgspec.Struct, forbid_unknown_fields=True):
    """A bid in the last `trigger_s` seconds moves the end by `extend_s`, at most `max_count` times, never past
    `hard_end`."""

    trigger_s: Annotated[int, Meta(ge=1, le=86_400)]
    extend_s: Annotated[int, Meta(ge=1, le=86_400)]
    mode: Literal["from_bid", "from_end"] = "from_bid"
    max_count: Annotated[int, Meta(ge=0, le=1_000_000)] | None = None
    hard_end: Instant | None = None


class NewItemBody(msgspec.Struct, forbid_unknown_fields=True):
    """An item and its terms; only `name` is required. `duration_s` counts the end from the start, by the server's
    clock."""

    name: Annotated[str, Meta(min_length=1, max_length=200)]
    id: ItemId | None = None
    description: Annotated[str, Meta(max_length=5_000)] = ""
    currency: Annotated[str, Meta(extra_json_schema={"example": "USD"})] = "USD"
    seller_id: UserId | None = None
    start_price: Price | UnsetType = UNSET
    reserve_price: Amount | UnsetType = UNSET
    buy_now_price: Amount | UnsetType = UNSET
    increment: IncrementBody | None = None
    start_time: Instant | None = None
    end_time: Instant | None = None
    duration_s: Annotated[int, Meta(ge=1, le=366 * 86_400)] | None = None
    soft_close: SoftCloseBody | None = None


class StepAnswer(msgspec.Struct):
    """One step of a ladder, as in :class:`StepBody`."""

    increment: Price
    below: Price | UnsetType = UNSET


class IncrementAnswer(msgspec.Struct):
    """What a bid must add, as in :class:`IncrementBody`: a `value`, or the `steps` of a ladder."""

    kind: Literal["flat", "percent", "ladder"]
    value: Price | UnsetType = UNSET
    steps: list[StepAnswer] | UnsetType = UNSET


class SoftCloseAnswer(msgspec.Struct):
    """As in :class:`SoftCloseBody`; `max_count` null: any number of times. A pause moves `hard_end` along."""

    trigger_s: int
    extend_s: int
    mode: Literal["from_bid", "from_end"]
    max_count: int | None
    hard_end: Instant | None


class ItemAnswer(msgspec.Struct):
    """An item as anybody may see it. `seq` counts its events from 0; `current_bid` is the start price until the first
    bid. `has_reserve` says that there is a reserve; how high it is, nobody is told."""

    id: ItemId
    name: str
    description: str
    currency: str
    seller_id: str | None
    start_price: Price
    current_bid: Price
    highest_bidder_id: str | None
    highest_bidder: str | None
    status: Literal["scheduled", "open", "paused", "sold", "unsold", "cancelled"]
    start_time: Instant
    end_time: Instant | None
    original_end_time: Instant | None
    created_at: Instant
    updated_at: Instant
    seq: int
    epoch: int
    bid_count: int
    min_next_bid: Price
    suggested_bids: list[Price]
    has_reserve: bool
    reserve_met: bool
    increment: IncrementAnswer
    soft_close: SoftCloseAnswer | None
    buy_now_price: Price | None
    buy_now_available: bool


class ItemPage(msgspec.Struct):
    """A page of items; `next_cursor` is null on the last one."""

    items: list[ItemAnswer]
    next_cursor: str | None


class HistoryBid(msgspec.Struct):
    """An accepted bid in the public history; `bidder` is an alias that is stable within the item."""

    seq: int
    bid_id: str
    bidder: str
    amount: Price
    kind: Literal["bid", "proxy", "buy_now"]
    status: Literal["valid", "voided"]
    timestamp: Instant


class HistoryPage(msgspec.Struct):
    """Bids, newest first. `partial` is true while the archive is away and only the latest bids can be shown."""

    bids: list[HistoryBid]
    next_cursor: str | None
    partial: bool


class OperationBody(msgspec.Struct, forbid_unknown_fields=True):
    """Why, and who says so; both are kept in the audit."""

    reason: Annotated[str, Meta(min_length=1, max_length=500)]
    by: UserId = "operator"


class ProblemAnswer(msgspec.Struct):
    """An error (RFC 9457). `code` is stable; `detail` and `error` say what to do; `field` is the member of the request
    that is wrong, where it is one."""

    type: str
    title: str
    status: int
    code: str
    detail: str
    error: str
    field: str | UnsetType = UNSET


_ANSWERS: Final = (BidAcceptedAnswer, BidRefusedAnswer, ItemAnswer, ItemPage, HistoryPage, ProblemAnswer)
_REQUESTS: Final = (BidRequest, NewItemBody, OperationBody)


def component_schemas() -> dict[str, Any]:
    """JSON schemas of all bodies, for OpenAPI's ``components``."""
    _, components = msgspec.json.schema_components([*_ANSWERS, *_REQUESTS], ref_template="#/components/schemas/{name}")
    return components


def reference(model: type[msgspec.Struct]) -> dict[str, Any]:
    """A reference to a body's schema."""
    return {"$ref": f"#/components/schemas/{model.__name__}"}


def json_content(*models: type[msgspec.Struct], media_type: str = "application/json") -> dict[str, Any]:
    """An OpenAPI ``content`` object for one body, or for one of several."""
    references = [reference(model) for model in models]
    return {media_type: {"schema": references[0] if len(references) == 1 else {"oneOf": references}}}
