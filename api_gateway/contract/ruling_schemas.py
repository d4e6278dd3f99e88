"""Bodies of requests and answers about who may bid. One definition serves the service and OpenAPI."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

from api_gateway.contract.schemas import NO_NUL, Amount, Currency, ItemId, Price, UserId

_BY = Meta(description="By default `operator`; where a token says who calls, that is you.")


class RulingBody(msgspec.Struct, forbid_unknown_fields=True):
    """Why, and who says so; both are kept in the audit, and both may be left out, with the whole body."""

    reason: Annotated[str, NO_NUL, Meta(max_length=500, description="Only the audit has it.")] = ""
    by: Annotated[UserId | UnsetType, _BY] = UNSET


class LimitBody(RulingBody, forbid_unknown_fields=True, kw_only=True):
    """How much one bid may come to, in the item's currency."""

    amount: Annotated[Amount, Meta(description="Neither an amount nor a maximum may be above it.")]


class SpendingLimitBody(LimitBody, forbid_unknown_fields=True, kw_only=True):
    """How much a bidder may lead with at one time, over all items in the currency."""

    currency: Annotated[Currency, Meta(description="By default USD.")] = "USD"


class BidderSpending(msgspec.Struct):
    """What a bidder may still lead with, over all items in the currency."""

    user_id: UserId
    currency: Currency
    limit: Annotated[Price | None, Meta(description="Null: any amount.")]
    committed: Annotated[
        Price | None,
        Meta(description="The sum of the maxima with which the bidder leads; null where there was never a limit."),
    ]
    remaining: Annotated[Price | None, Meta(description="Null: any amount.")]


class RuledBidder(msgspec.Struct):
    """A bidder on whom something was ruled: on this item, for all items of this seller, or for all items."""

    user_id: UserId
    approved: bool
    blocked: bool
    limit: Annotated[
        Price | None, Meta(description="Of one bid on the item; null: none, or this is no list of an item.")
    ]


class RuledBiddersPage(msgspec.Struct):
    """Bidders in no order. A page may have fewer than `limit`, or some hundreds more; on the last one `next_cursor` is
    null.

    Rulings that are made between two pages may be left out, or appear twice.
    """

    bidders: list[RuledBidder]
    next_cursor: str | None
    approval_required: Annotated[
        bool,
        Meta(description="Whether everybody needs approval: on this item, or on all where the list is of no item."),
    ]


class BidderOnItem(msgspec.Struct):
    """Whether somebody may bid on an item, and why not. The seller of the item may not in any case."""

    item_id: ItemId
    user_id: UserId
    may_bid: bool
    refusal: Annotated[Literal["BLOCKED", "NOT_APPROVED"] | None, Meta(description="What a bid is refused with.")]
    approval_required: Annotated[bool, Meta(description="The item asks for approval, or all items do.")]
    approved: Annotated[bool, Meta(description="On this item.")]
    approved_for_all: Annotated[bool, Meta(description="On all items.")]
    blocked: Annotated[bool, Meta(description="On this item.")]
    blocked_by_seller: Annotated[bool, Meta(description="On all items of its seller.")]
    blocked_for_all: Annotated[bool, Meta(description="On all items.")]
    limit: Annotated[Price | None, Meta(description="The most that one bid on this item may come to; null for any.")]
    currency: Currency


class BidderForAll(msgspec.Struct):
    """What holds for a bidder on all items, or on all items of a seller."""

    user_id: UserId
    seller_id: Annotated[UserId | None, Meta(description="Null: of all sellers.")]
    approved: bool
    blocked: bool
    approval_required: Annotated[bool, Meta(description="All items ask for approval.")]


class HouseRules(msgspec.Struct):
    """What holds for everybody."""

    approval_required: Annotated[bool, Meta(description="All items ask for approval.")]
