"""Who may bid: sellers and operators approve, block and limit bidders, on an item, for a seller, or for all items."""

from __future__ import annotations

from typing import Any, Final, Literal

import msgspec
from fastapi import APIRouter, Request, Response

from api_gateway.changes.new_items import checked_item_id
from api_gateway.context import context_of
from api_gateway.contract.documented import request_body
from api_gateway.contract.ruling_schemas import (
    BidderForAll,
    BidderOnItem,
    BidderSpending,
    HouseRules,
    LimitBody,
    RuledBidder,
    RuledBiddersPage,
    RulingBody,
    SpendingLimitBody,
)
from api_gateway.contract.schemas import decode_body, optional_amount
from api_gateway.engine.rulings.scripts import OnAll, OnItem, Ruled
from api_gateway.identity.access import permit_of
from api_gateway.routes.items import ItemIdPath, Limit
from api_gateway.routes.ruling_requests import (
    By,
    CurrencyQuery,
    Cursor,
    Reason,
    SellerIdPath,
    UserIdPath,
    as_json,
    check_user,
    cursor_after,
    cursor_in,
    docs,
    own_seller,
    reason_of,
    said_in_address,
    sent,
)
from shared.archive_reads.history import PAGE_DEFAULT
from shared.domain.errors import InvalidInput
from shared.domain.money import exponent_of
from shared.domain.rulings import Rulings
from shared.redis_layout.item_hash import ItemState, amount_json
from shared.redis_layout.rulings import EVERYBODY, HouseRuling

router = APIRouter(prefix="/api/v1", tags=["bidders"])

_limit_decoder: Final = msgspec.json.Decoder(LimitBody)
_spending_decoder: Final = msgspec.json.Decoder(SpendingLimitBody)
_ON_ITEM: Final = docs(BidderOnItem, 404, 409, 422, 503)
_ON_ITEM_WITH_BODY: Final = docs(BidderOnItem, 404, 409, 422, 503, body={"reason": "known to the house"})
_FOR_ALL: Final = docs(BidderForAll, 409, 422, 503)
_FOR_ALL_WITH_BODY: Final = docs(BidderForAll, 409, 422, 503, body={"reason": "has not paid"})
_APPROVAL: Final = "/items/{item_id}/bidders/{user_id}/approval"
_BLOCK: Final = "/items/{item_id}/bidders/{user_id}/block"
_LIMIT: Final = "/items/{item_id}/bidders/{user_id}/limit"
_SELLERS_BLOCK: Final = "/sellers/{seller_id}/bidders/{user_id}/block"


# ---------------------------------------------------------------------------------------------------- on one item


@router.put(_APPROVAL, summary="Approve a bidder on an item", **_ON_ITEM_WITH_BODY)
async def approve_on_item(request: Request, item_id: ItemIdPath, user_id: UserIdPath) -> Response:
    """Let the bidder bid on the item, where it asks for approval (`approval_required`)."""
    return await _on_item(request, item_id, user_id, "approve", await sent(request))


@router.delete(_APPROVAL, summary="Take an approval on an item back", **_ON_ITEM)
async def unapprove_on_item(
    request: Request, item_id: ItemIdPath, user_id: UserIdPath, reason: Reason = "", by: By = None
) -> Response:
    """Bids that were accepted stand, and a maximum goes on to bid: a void strikes it."""
    return await _on_item(request, item_id, user_id, "unapprove", said_in_address(reason, by))


@router.put(_BLOCK, summary="Block a bidder on an item", **_ON_ITEM_WITH_BODY)
async def block_on_item(request: Request, item_id: ItemIdPath, user_id: UserIdPath) -> Response:
    """Take no more bids of the bidder on the item. Bids that were accepted stand, and a maximum goes on to bid: a void
    strikes it."""
    return await _on_item(request, item_id, user_id, "block", await sent(request))


@router.delete(_BLOCK, summary="Take a block on an item back", **_ON_ITEM)
async def unblock_on_item(
    request: Request, item_id: ItemIdPath, user_id: UserIdPath, reason: Reason = "", by: By = None
) -> Response:
    """A block by the seller or by the house goes on."""
    return await _on_item(request, item_id, user_id, "unblock", said_in_address(reason, by))


@router.put(
    _LIMIT,
    summary="Limit a bidder on an item",
    **docs(BidderOnItem, 404, 409, 422, 503),
    openapi_extra={"requestBody": request_body(LimitBody, {"amount": 500, "reason": "no deposit"})},
)
async def limit_on_item(request: Request, item_id: ItemIdPath, user_id: UserIdPath) -> Response:
    """Take no bid of the bidder on the item whose amount or maximum is above this. What was accepted before stands."""
    said = decode_body(_limit_decoder, await request.body(), '{"amount": 500}')
    return await _on_item(request, item_id, user_id, "limit", said)


@router.delete(_LIMIT, summary="Take a limit on an item back", **_ON_ITEM)
async def unlimit_on_item(
    request: Request, item_id: ItemIdPath, user_id: UserIdPath, reason: Reason = "", by: By = None
) -> Response:
    """The bidder may bid any amount on the item."""
    return await _on_item(request, item_id, user_id, "unlimit", said_in_address(reason, by))


@router.get(
    "/items/{item_id}/bidders/{user_id}", summary="May this bidder bid on it?", **docs(BidderOnItem, 404, 422, 503)
)
async def get_bidder_of_item(request: Request, item_id: ItemIdPath, user_id: UserIdPath) -> Response:
    """What was ruled on the bidder, as the next bid is decided by it. Bidders may ask about themselves."""
    check_user(user_id)
    permit = permit_of(request)
    item = await _item(request, item_id)
    if permit.own_id is not None and permit.own_id != user_id:
        permit.require_seller(item.terms.seller_id)
    return await _tell_on_item(request, item, user_id)


@router.get("/items/{item_id}/bidders", summary="List the bidders of an item", **docs(RuledBiddersPage, 404, 422, 503))
async def list_bidders_of_item(
    request: Request, item_id: ItemIdPath, cursor: Cursor = None, limit: Limit = PAGE_DEFAULT
) -> Response:
    """Those who were approved, blocked or limited on the item. Bidders who were for all items are in another list."""
    item = await _item(request, item_id)
    permit_of(request).require_seller(item.terms.seller_id)
    found, following = await context_of(request).rulings.page_of_item(item_id, cursor_in(cursor), limit)
    bidders = [
        RuledBidder(
            user_id,
            ruling.approved,
            ruling.blocked,
            None if ruling.limit is None else amount_json(ruling.limit, item.terms.currency),
        )
        for user_id, ruling in found.items()
    ]
    return as_json(RuledBiddersPage(bidders, cursor_after(following), item.terms.approval_required))


# ------------------------------------------------------------------------------------------------- of one seller


@router.put(_SELLERS_BLOCK, summary="Block a bidder on all items of a seller", **_FOR_ALL_WITH_BODY)
async def block_for_seller(request: Request, seller_id: SellerIdPath, user_id: UserIdPath) -> Response:
    """Take no more bids of the bidder on what the seller sells, now and later."""
    said = await sent(request)
    return await _on_all(request, user_id, own_seller(request, seller_id), "block", said)


@router.delete(_SELLERS_BLOCK, summary="Take a seller's block back", **_FOR_ALL)
async def unblock_for_seller(
    request: Request, seller_id: SellerIdPath, user_id: UserIdPath, reason: Reason = "", by: By = None
) -> Response:
    """A block on a single item or by the house goes on."""
    return await _on_all(request, user_id, own_seller(request, seller_id), "unblock", said_in_address(reason, by))


@router.get(
    "/sellers/{seller_id}/bidders/{user_id}",
    summary="Has a seller blocked this bidder?",
    **docs(BidderForAll, 422, 503),
)
async def get_bidder_of_seller(request: Request, seller_id: SellerIdPath, user_id: UserIdPath) -> Response:
    """Whether the bidder is blocked on all of the seller's items. What holds on one of them is told with the item."""
    check_user(user_id)
    return await _tell_for_all(request, user_id, own_seller(request, seller_id))


@router.get(
    "/sellers/{seller_id}/bidders", summary="List whom a seller has blocked", **docs(RuledBiddersPage, 422, 503)
)
async def list_bidders_of_seller(
    request: Request, seller_id: SellerIdPath, cursor: Cursor = None, limit: Limit = PAGE_DEFAULT
) -> Response:
    """Those who are blocked on all of the seller's items. A page may be empty and have a `next_cursor`."""
    return await _list_all(request, own_seller(request, seller_id), cursor, limit)


# ------------------------------------------------------------------------------------------------- for all items


@router.put("/bidders/{user_id}/approval", summary="Approve a bidder for all items", **_FOR_ALL_WITH_BODY)
async def approve_bidder(request: Request, user_id: UserIdPath) -> Response:
    """Let the bidder bid wherever approval is asked for."""
    return await _on_all(request, user_id, None, "approve", await sent(request))


@router.delete("/bidders/{user_id}/approval", summary="Take an approval for all items back", **_FOR_ALL)
async def unapprove_bidder(request: Request, user_id: UserIdPath, reason: Reason = "", by: By = None) -> Response:
    """Approvals on single items go on. Bids that were accepted stand."""
    return await _on_all(request, user_id, None, "unapprove", said_in_address(reason, by))


@router.put("/bidders/{user_id}/block", summary="Block a bidder on all items", **_FOR_ALL_WITH_BODY)
async def block_bidder(request: Request, user_id: UserIdPath) -> Response:
    """Take no more bids of the bidder. When this is answered, that holds on every item. Bids that were accepted stand,
    and maxima go on to bid: voids strike them."""
    return await _on_all(request, user_id, None, "block", await sent(request))


@router.delete("/bidders/{user_id}/block", summary="Take a block on all items back", **_FOR_ALL)
async def unblock_bidder(request: Request, user_id: UserIdPath, reason: Reason = "", by: By = None) -> Response:
    """Blocks on single items and by sellers go on."""
    return await _on_all(request, user_id, None, "unblock", said_in_address(reason, by))


@router.put(
    "/bidders/{user_id}/limit",
    summary="Limit what a bidder spends",
    **docs(BidderSpending, 409, 422, 503),
    openapi_extra={"requestBody": request_body(SpendingLimitBody, {"amount": 5000, "currency": "USD"})},
)
async def limit_bidder(request: Request, user_id: UserIdPath) -> Response:
    """Bound the sum of the maxima with which the bidder leads, over all items in the currency. What the bidder leads
    with already counts, and stands, also where it is more: then no bid that leads is taken until it is less. When
    this is answered, it holds on every item."""
    said = decode_body(_spending_decoder, await request.body(), '{"amount": 5000}')
    exponent = exponent_of(said.currency)
    amount = optional_amount(said.amount, exponent, "amount")
    if amount is None:
        raise InvalidInput("amount: a JSON number, for example 5000; DELETE takes a limit back")
    return await _limit_spending(request, user_id, said.currency, amount, said)


@router.delete("/bidders/{user_id}/limit", summary="Take a spending limit back", **docs(BidderSpending, 409, 422, 503))
async def unlimit_bidder(
    request: Request, user_id: UserIdPath, currency: CurrencyQuery = "USD", reason: Reason = "", by: By = None
) -> Response:
    """The bidder may lead with any amount in the currency. Limits on single items go on."""
    return await _limit_spending(request, user_id, currency, None, said_in_address(reason, by))


@router.get("/bidders/{user_id}/limit", summary="What may a bidder still spend?", **docs(BidderSpending, 422, 503))
async def get_spending(request: Request, user_id: UserIdPath, currency: CurrencyQuery = "USD") -> Response:
    """Bidders may ask about themselves."""
    check_user(user_id)
    permit_of(request).user(user_id, "user_id")
    return await _tell_spending(request, user_id, currency)


@router.get("/bidders/{user_id}", summary="What holds for a bidder on all items?", **docs(BidderForAll, 422, 503))
async def get_bidder(request: Request, user_id: UserIdPath) -> Response:
    """Bidders may ask about themselves."""
    check_user(user_id)
    permit_of(request).user(user_id, "user_id")
    return await _tell_for_all(request, user_id, None)


@router.get("/bidders", summary="List the bidders of the house", **docs(RuledBiddersPage, 422, 503))
async def list_bidders(request: Request, cursor: Cursor = None, limit: Limit = PAGE_DEFAULT) -> Response:
    """Those who were approved or blocked for all items. A page may be empty and have a `next_cursor`."""
    return await _list_all(request, None, cursor, limit)


@router.put(
    "/approval-required",
    summary="Ask for approval on all items",
    **docs(HouseRules, 409, 422, 503, body={"reason": "a sale for members"}),
)
async def require_approval(request: Request) -> Response:
    """From now on only bidders who were approved may bid, on an item or for all."""
    return await _ask_everybody(request, "approve", await sent(request))


@router.delete("/approval-required", summary="Ask for approval no longer", **docs(HouseRules, 409, 422, 503))
async def waive_approval(request: Request, reason: Reason = "", by: By = None) -> Response:
    """Items that ask for approval themselves go on to."""
    return await _ask_everybody(request, "unapprove", said_in_address(reason, by))


# -------------------------------------------------------------------------------------------------------- helpers


async def _item(request: Request, item_id: str) -> ItemState:
    return (await context_of(request).items.find(checked_item_id(item_id), may_open=False)).item


async def _on_item(request: Request, item_id: str, user_id: str, ruling: OnItem, said: RulingBody) -> Response:
    check_user(user_id)
    why = reason_of(request, said)
    item = await _item(request, item_id)
    # Who sells an item, and in which currency, never changes, so it may be read before.
    permit_of(request).require_seller(item.terms.seller_id)
    limit = None
    if isinstance(said, LimitBody):
        limit = optional_amount(said.amount, exponent_of(item.terms.currency), "amount")
        if limit is None:
            raise InvalidInput("amount: a JSON number, for example 500; DELETE takes a limit back")
    await context_of(request).rulings.rule_on_item(item_id, user_id, ruling, limit=limit, **why)
    return await _tell_on_item(request, item, user_id)


async def _tell_on_item(request: Request, item: ItemState, user_id: str) -> Response:
    terms = item.terms
    found = await context_of(request).rulings.read(user_id, item_id=terms.item_id, seller_id=terms.seller_id)
    rulings = _rulings(found, needs_approval=terms.approval_required)
    refusal: Any = rulings.refusal
    return as_json(
        BidderOnItem(
            item_id=terms.item_id,
            user_id=user_id,
            may_bid=refusal is None and user_id != terms.seller_id,
            refusal=refusal,
            approval_required=rulings.needs_approval,
            approved=found.on_item.approved,
            approved_for_all=found.on_all.approved,
            blocked=found.on_item.blocked,
            blocked_by_seller=terms.seller_id is not None and found.on_seller.blocked,
            blocked_for_all=found.on_all.blocked,
            limit=None if rulings.limit is None else amount_json(rulings.limit, terms.currency),
            currency=terms.currency,
        )
    )


def _rulings(found: Ruled, *, needs_approval: bool) -> Rulings:
    on_item, on_all, on_seller = found.on_item, found.on_all, found.on_seller
    return Rulings(
        needs_approval=needs_approval or found.house_needs,
        approved=on_item.approved or on_all.approved or on_seller.approved,
        blocked=on_item.blocked or on_all.blocked or on_seller.blocked,
        limit=on_item.limit,
    )


async def _limit_spending(
    request: Request, user_id: str, currency: str, amount: int | None, said: RulingBody
) -> Response:
    check_user(user_id)
    exponent_of(currency)
    await context_of(request).rulings.limit_spending(user_id, currency, amount, **reason_of(request, said))
    return await _tell_spending(request, user_id, currency)


async def _tell_spending(request: Request, user_id: str, currency: str) -> Response:
    exponent_of(currency)
    spending = await context_of(request).rulings.spending(user_id, currency)
    limit, committed, remaining = spending.limit, spending.committed, spending.remaining
    return as_json(
        BidderSpending(
            user_id=user_id,
            currency=currency,
            limit=None if limit is None else amount_json(limit, currency),
            committed=None if committed is None else amount_json(committed, currency),
            remaining=None if remaining is None else amount_json(remaining, currency),
        )
    )


async def _on_all(request: Request, user_id: str, seller_id: str | None, ruling: OnAll, said: RulingBody) -> Response:
    check_user(user_id)
    await context_of(request).rulings.rule_on_all(user_id, seller_id, ruling, **reason_of(request, said))
    return await _tell_for_all(request, user_id, seller_id)


async def _tell_for_all(request: Request, user_id: str, seller_id: str | None) -> Response:
    rulings = context_of(request).rulings
    found = await rulings.read(user_id, seller_id=seller_id)
    ruled: HouseRuling = found.on_all if seller_id is None else found.on_seller
    return as_json(BidderForAll(user_id, seller_id, ruled.approved, ruled.blocked, found.house_needs))


async def _ask_everybody(request: Request, ruling: Literal["approve", "unapprove"], said: RulingBody) -> Response:
    await context_of(request).rulings.rule_on_all(EVERYBODY, None, ruling, **reason_of(request, said))
    return as_json(HouseRules(await context_of(request).rulings.house_needs_approval()))


async def _list_all(request: Request, seller_id: str | None, cursor: str | None, limit: int) -> Response:
    rulings = context_of(request).rulings
    found, following = await rulings.page_of_all(seller_id, cursor_in(cursor), limit)
    bidders = [RuledBidder(user_id, ruling.approved, ruling.blocked, None) for user_id, ruling in found.items()]
    return as_json(RuledBiddersPage(bidders, cursor_after(following), await rulings.house_needs_approval()))
