"""Answers as OpenAPI describes them, and how operations refer to them. The service builds none of these structs.

The hot path writes its answers as text. :func:`shared.redis_layout.item_hash.public_item` makes those about items, and
the live feed uses it too. The tests check every answer against these schemas, strictly.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from api_gateway.schemas import (
    BidId,
    BidRequest,
    Count,
    Currency,
    FeedTokenAnswer,
    FeedTokenBody,
    HistoryPage,
    Instant,
    ItemId,
    NewItemBody,
    OperationBody,
    Price,
    UserId,
)
from shared.domain.auction import Status

_CURRENT_BID = Meta(description="The price of the item right after this bid was decided.")
_MIN_NEXT_BID = Meta(description="What the next bid must reach.")
_RESERVE_MET = Meta(description="Whether the price reaches the hidden reserve; true where there is none.")


class BidAcceptedAnswer(msgspec.Struct):
    """201: the bid counts."""

    success: Literal[True]
    message: Annotated[str, Meta(description="The verdict in words.")]
    current_bid: Annotated[Price, _CURRENT_BID]
    your_bid: Annotated[Price, Meta(description="What your bid came to; with a maximum it may be above your amount.")]
    is_highest: Annotated[bool, Meta(description="Whether you lead right after it.")]
    event_id: Annotated[str, Meta(description="The event of the live feed: `item:epoch:seq`.")]
    bid_id: Annotated[BidId, Meta(description="Yours, or one that the platform made.")]
    seq: Annotated[Count, Meta(description="Its number; of a maximum that rose unseen, the last event's.")]
    min_next_bid: Annotated[Price, _MIN_NEXT_BID]
    reserve_met: Annotated[bool, _RESERVE_MET]


RefusalCode = Literal[
    "NOT_STARTED", "CLOSED", "PAUSED", "CANCELLED", "SOLD", "OWN_ITEM", "TOO_LOW", "MAX_NOT_RAISED"
]  # fmt: skip


class BidRefusedAnswer(msgspec.Struct):
    """200: the rules refused the bid, and nothing changed."""

    success: Literal[False]
    code: Annotated[RefusalCode, Meta(description="Why.")]
    message: Annotated[str, Meta(description="The verdict in words.")]
    current_bid: Annotated[Price, _CURRENT_BID]
    your_bid: Annotated[Price | None, Meta(description="The `amount` of the request; null where it had none.")]
    is_highest: Annotated[bool, Meta(description="False: this bid is not the highest. See `you_lead`.")]
    min_next_bid: Annotated[Price, _MIN_NEXT_BID]
    you_lead: Annotated[bool, Meta(description="Whether you lead all the same, with an earlier bid.")]
    reserve_met: Annotated[bool, _RESERVE_MET]


class StepAnswer(msgspec.Struct):
    """One step of a ladder, as in StepBody."""

    increment: Price
    below: Price | UnsetType = UNSET


class IncrementAnswer(msgspec.Struct):
    """What a bid must add, as in IncrementBody: a `value`, or the `steps` of a ladder."""

    kind: Literal["flat", "percent", "ladder"]
    value: Price | UnsetType = UNSET
    steps: list[StepAnswer] | UnsetType = UNSET


class SoftCloseAnswer(msgspec.Struct):
    """As in SoftCloseBody; `max_count` null: any number of times. A pause moves `hard_end` along."""

    trigger_s: int
    extend_s: int
    mode: Literal["from_bid", "from_end"]
    max_count: int | None
    hard_end: Instant | None


class ItemAnswer(msgspec.Struct):
    """An item as anybody may see it."""

    id: Annotated[ItemId, Meta(description="Part of its address.")]
    name: Annotated[str, Meta(description="Its title.")]
    description: Annotated[str, Meta(description="Plain text, may be empty.")]
    currency: Annotated[Currency, Meta(description="ISO 4217; its decimals are those of every amount.")]
    seller_id: Annotated[UserId | None, Meta(description="Who sells; null where nobody was named.")]
    start_price: Annotated[Price, Meta(description="What the first bid must reach.")]
    current_bid: Annotated[Price, Meta(description="The price; until the first bid the start price.")]
    highest_bidder_id: Annotated[UserId | None, Meta(description="Who leads; null until the first bid.")]
    highest_bidder: Annotated[str | None, Meta(description="The same bidder's alias, as in the history.")]
    status: Status
    start_time: Annotated[Instant, Meta(description="From when bids are taken.")]
    end_time: Annotated[Instant | None, Meta(description="Until when; a soft close or a pause moves it. Null: no end.")]
    original_end_time: Annotated[Instant | None, Meta(description="The end before anything moved it.")]
    created_at: Annotated[Instant, Meta(description="When it was created.")]
    updated_at: Annotated[Instant, Meta(description="When its last event happened.")]
    seq: Annotated[Count, Meta(description="The number of its last event; 0 is its creation. A rebuilt item goes on.")]
    epoch: Annotated[Count, Meta(description="Raised when the item is rebuilt; the pair (epoch, seq) only rises.")]
    bid_count: Annotated[Count, Meta(description="Bids that stand; automatic ones do not count.")]
    min_next_bid: Annotated[Price, _MIN_NEXT_BID]
    suggested_bids: Annotated[list[Price], Meta(description="A few amounts to offer, from `min_next_bid` up.")]
    has_reserve: Annotated[bool, Meta(description="Whether there is a hidden reserve; how high, nobody is told.")]
    reserve_met: Annotated[bool, _RESERVE_MET]
    increment: IncrementAnswer
    soft_close: Annotated[SoftCloseAnswer | None, Meta(description="Null: late bids do not move the end.")]
    buy_now_price: Annotated[Price | None, Meta(description="Null: there never was one.")]
    buy_now_available: Annotated[bool, Meta(description="Whether it can still be bought at that price.")]


class ItemPage(msgspec.Struct):
    """A page of items; `next_cursor` is null on the last one. `being_rebuilt` are the ids of items that belong on this
    page and were lost: they come back."""

    items: list[ItemAnswer]
    next_cursor: str | None
    being_rebuilt: list[ItemId]


class ProblemAnswer(msgspec.Struct):
    """An error (RFC 9457). Expect codes that you do not know, and go by `status` then.

    400 BAD_REQUEST. 403 IDENTITY_REQUIRED. 404 ITEM_NOT_FOUND, BID_NOT_FOUND, KEY_NOT_FOUND. 408 HEAD_TOO_SLOW,
    BODY_TOO_SLOW. 409 BID_STRUCK, ITEM_EXISTS, STATE_CONFLICT. 413 BODY_TOO_LARGE. 422 INVALID, AMOUNT_INVALID,
    CURRENCY_UNKNOWN, TERMS_INVALID, KEY_REUSED. 431 HEAD_TOO_LARGE. 500 INTERNAL_ERROR. 501 NOT_IMPLEMENTED. 503
    UNAVAILABLE, OVERLOADED, OUTBOX_FULL, BEING_REBUILT, PRIVATE_CHANNEL_OFF, OUTCOME_UNKNOWN.
    """

    type: Annotated[str, Meta(description="A URN of the code.", extra_json_schema={"format": "uri"})]
    title: Annotated[str, Meta(description="The status in words.")]
    status: Annotated[int, Meta(ge=400, le=599, description="The HTTP status.")]
    code: Annotated[str, Meta(description="Stable, for programs.", examples=["ITEM_NOT_FOUND"])]
    detail: Annotated[str, Meta(description="What to do, for people.")]
    error: Annotated[str, Meta(description="The same as `detail`, for clients of the older API.")]
    field: Annotated[str | UnsetType, Meta(description="The member of the request that is wrong, where it is one.")] = (
        UNSET
    )


class HealthAnswer(msgspec.Struct):
    """The process answers."""

    status: Literal["healthy"]
    service: Literal["api-gateway"]
    time: Instant


class ReadyAnswer(msgspec.Struct):
    """`degraded` says of each part that is not well what is the matter; bids are taken unless `unavailable`."""

    status: Literal["ready", "degraded", "unavailable"]
    service: Literal["api-gateway"]
    degraded: dict[str, str]


_ANSWERS: Final = (
    BidAcceptedAnswer,
    BidRefusedAnswer,
    ItemAnswer,
    ItemPage,
    HistoryPage,
    ProblemAnswer,
    FeedTokenAnswer,
    HealthAnswer,
    ReadyAnswer,
)
_REQUESTS: Final = (BidRequest, NewItemBody, OperationBody, FeedTokenBody)


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


def request_body(model: type[msgspec.Struct], example: dict[str, Any]) -> dict[str, Any]:
    """An OpenAPI ``requestBody``. The example is what `/docs` offers to send, so it must succeed."""
    content = {"schema": reference(model), "example": example}
    return {"required": True, "content": {"application/json": content}}
