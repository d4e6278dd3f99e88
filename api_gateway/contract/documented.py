"""Answers as OpenAPI describes them, and how operations refer to them. The service builds none of these structs.

The hot path writes its answers as text. :func:`shared.redis_layout.item_hash.public_item` makes those about items, and
the live feed uses it too. The tests check every answer against these schemas, strictly.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from api_gateway.contract.ruling_schemas import (
    BidderForAll,
    BidderOnItem,
    BidderSpending,
    HouseRules,
    LimitBody,
    RuledBiddersPage,
    RulingBody,
    SpendingLimitBody,
)
from api_gateway.contract.schemas import (
    BidBatch,
    BidId,
    BidRequest,
    Count,
    Currency,
    ExtendBody,
    FeedTicketAnswer,
    FeedTokenAnswer,
    FeedTokenBody,
    HistoryPage,
    ImageUrl,
    Instant,
    ItemBatch,
    ItemId,
    MeAnswer,
    NamedBidsPage,
    NewItemBody,
    OperationBody,
    Price,
    RevocationAnswer,
    RevocationBody,
    SignInAnswer,
    SignInBody,
    SignInCodeAnswer,
    TokenAnswer,
    UserId,
)
from api_gateway.ops.overview import ActsPage, AuditPage, DeadLetters, Overview, RulingsPage
from api_gateway.own.schemas import OwnBidsPage, WatchedAnswer, WatchListAnswer
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
    kind: Annotated[Literal["bid", "buy_now"], Meta(description="`buy_now`: it took the item at once.")]


RefusalCode = Literal[
    "NOT_STARTED", "CLOSED", "PAUSED", "CANCELLED", "SOLD", "OWN_ITEM", "BLOCKED", "NOT_APPROVED", "TOO_LOW",
    "MAX_NOT_RAISED", "LIMIT_EXCEEDED"
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
    image_urls: Annotated[
        list[ImageUrl],
        Meta(description="Its images, the first one for lists. Those that begin with `/` are on this gateway."),
    ]
    currency: Annotated[Currency, Meta(description="ISO 4217; its decimals are those of every amount.")]
    seller_id: Annotated[UserId | None, Meta(description="Who sells; null where nobody was named.")]
    start_price: Annotated[Price, Meta(description="What the first bid must reach.")]
    current_bid: Annotated[Price, Meta(description="The price; until the first bid the start price.")]
    highest_bidder_id: Annotated[
        UserId | None,
        Meta(
            description="Who leads; null until the first bid. Where tokens say who calls, this is the alias too: only "
            "the bidder is told which one is theirs, by the private channel of the live feed."
        ),
    ]
    highest_bidder: Annotated[str | None, Meta(description="The same bidder's alias, such as `amber-heron-417`.")]
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
    approval_required: Annotated[bool, Meta(description="Only bidders who were approved may bid on it.")]


class ImageAnswer(msgspec.Struct):
    """An image that was uploaded. An item may have its `url` among its `image_urls`, for a day from now on."""

    url: Annotated[ImageUrl, Meta(description="On this gateway; it stays that of this image for ever.")]
    content_type: Annotated[str, Meta(description="`image/jpeg`, `image/png` or `image/webp`.")]
    bytes: Annotated[Count, Meta(description="Its size without what was taken out.")]
    width: Annotated[Count, Meta(description="In pixels, as they are stored: a camera held upright may count as wide.")]
    height: Annotated[Count, Meta(description="In pixels.")]


class ItemPage(msgspec.Struct):
    """A page of items; `next_cursor` is null on the last one. `being_rebuilt` are the ids of items that belong on this
    page and were lost: they come back."""

    items: list[ItemAnswer]
    next_cursor: str | None
    being_rebuilt: list[ItemId]


class ProblemAnswer(msgspec.Struct):
    """An error (RFC 9457). Expect codes that you do not know, and go by `status` then.

    400 BAD_REQUEST. 401 UNAUTHENTICATED. 403 FORBIDDEN, IDENTITY_REQUIRED, ORIGIN_NOT_ALLOWED. 404 ITEM_NOT_FOUND,
    BID_NOT_FOUND, KEY_NOT_FOUND, IMAGE_NOT_FOUND, CODE_NOT_FOUND. 408 HEAD_TOO_SLOW, BODY_TOO_SLOW. 409 BID_STRUCK,
    ITEM_EXISTS, LEAD_LACKS_CREDIT, NO_TOKENS, STATE_CONFLICT, TOO_MANY_RULINGS, WATCH_LIST_FULL. 410 HISTORY_RETIRED,
    with `export`, `head`, `bids` and `retired_at`. 413 BODY_TOO_LARGE. 415 UNSUPPORTED_MEDIA_TYPE, IMAGE_TYPE. 422
    INVALID, AMOUNT_INVALID, CURRENCY_UNKNOWN, TERMS_INVALID, KEY_REUSED, IMAGE_BROKEN, IMAGE_DIMENSIONS. 429
    RATE_LIMITED, IMAGE_QUOTA, TOO_MANY_BODIES_FROM_ADDRESS. 431 HEAD_TOO_LARGE. 500 INTERNAL_ERROR. 501
    NOT_IMPLEMENTED, IMAGES_OFF. 503 UNAVAILABLE, OVERLOADED, OUTBOX_FULL, BEING_REBUILT, PRIVATE_CHANNEL_OFF,
    API_KEYS_OFF, TOO_MANY_REVOCATIONS, IMAGES_UNAVAILABLE, OUTCOME_UNKNOWN. 507 IMAGES_FULL, WATCH_LISTS_FULL.
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


class BatchedAnswer(msgspec.Struct):
    """The answer to one bid of several: the same as if it had been sent alone."""

    item_id: Annotated[str, Meta(description="The bid's item, as it was sent.")]
    status: Annotated[int, Meta(description="201, 200, or that of a problem.")]
    answer: Annotated[
        dict[str, Any],
        Meta(
            description="Its body.",
            extra_json_schema={
                "oneOf": [
                    {"$ref": f"#/components/schemas/{name}"}
                    for name in ("BidAcceptedAnswer", "BidRefusedAnswer", "ProblemAnswer")
                ]
            },
        ),
    ]


class BatchAnswer(msgspec.Struct):
    """The answers to several bids, in their order."""

    results: list[BatchedAnswer]


class BatchedItemAnswer(msgspec.Struct):
    """The answer to one new item of several: the same as if it had been sent alone."""

    id: Annotated[ItemId | None, Meta(description="Null where the item is malformed.")]
    status: Annotated[int, Meta(description="201, that of a problem, or 200 of a dry run.")]
    answer: Annotated[
        dict[str, Any],
        Meta(
            description="Its body.",
            extra_json_schema={
                "oneOf": [
                    {"$ref": f"#/components/schemas/{name}"} for name in ("ItemAnswer", "ProblemAnswer", "ValidAnswer")
                ]
            },
        ),
    ]


class ValidAnswer(msgspec.Struct):
    """The item could be created, unless its id is taken."""

    valid: Literal[True]


class ItemBatchAnswer(msgspec.Struct):
    """The answers to several new items, in their order."""

    results: list[BatchedItemAnswer]


class HealthAnswer(msgspec.Struct):
    """The process answers."""

    status: Literal["healthy"]
    service: Literal["api-gateway"]
    time: Instant


class ReadyAnswer(msgspec.Struct):
    """`degraded` says what is wrong with each part that is not well, to callers who may know. Bids are taken unless the
    status is `unavailable`."""

    status: Literal["ready", "degraded", "unavailable"]
    service: Literal["api-gateway"]
    degraded: dict[str, str] | UnsetType = UNSET


_ANSWERS: Final = (
    BidAcceptedAnswer,
    BidRefusedAnswer,
    ItemAnswer,
    ItemPage,
    ImageAnswer,
    HistoryPage,
    NamedBidsPage,
    ProblemAnswer,
    FeedTicketAnswer,
    FeedTokenAnswer,
    MeAnswer,
    SignInCodeAnswer,
    SignInAnswer,
    WatchListAnswer,
    WatchedAnswer,
    OwnBidsPage,
    Overview,
    DeadLetters,
    ActsPage,
    AuditPage,
    RulingsPage,
    BatchAnswer,
    ItemBatchAnswer,
    ValidAnswer,
    HealthAnswer,
    ReadyAnswer,
    RevocationAnswer,
    TokenAnswer,
    BidderOnItem,
    BidderForAll,
    BidderSpending,
    RuledBiddersPage,
    HouseRules,
)
_REQUESTS: Final = (
    BidRequest,
    BidBatch,
    NewItemBody,
    ItemBatch,
    OperationBody,
    ExtendBody,
    FeedTokenBody,
    RevocationBody,
    RulingBody,
    LimitBody,
    SpendingLimitBody,
    SignInBody,
)


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
