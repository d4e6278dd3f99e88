"""``/api/v1/items``: create, read, list, history."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import msgspec
from fastapi import APIRouter, Path, Query, Request, Response
from pydantic.json_schema import SkipJsonSchema

from api_gateway.changes import items_with_images
from api_gateway.changes.new_items import checked_item_id, instant_of, read_new_item
from api_gateway.context import Context, context_of
from api_gateway.contract.documented import ItemAnswer, ItemPage, json_content, request_body
from api_gateway.contract.schemas import (
    HAS_CONTROL_BUT_LINES,
    USER_ID_RULE,
    ExtendBody,
    HistoryPage,
    NamedBidsPage,
    NewItemBody,
    OperationBody,
    decode_body,
)
from api_gateway.door.rates import peer_of
from api_gateway.engine.item_scripts import Transition
from api_gateway.engine.items import KEEPS_MOVING, READS_MAX
from api_gateway.hot_path import idempotency_key
from api_gateway.identity.access import Permit, permit_of
from api_gateway.reads.listing import ITEMS_PER_UNIT, Wish
from shared import names
from shared.archive_reads.history import PAGE_DEFAULT, PAGE_MAX, named_history, parse_cursor, public_history
from shared.archive_reads.retired import decode_retired
from shared.domain.auction import Status
from shared.domain.errors import BidNotFound, InvalidInput, TermsInvalid, Unavailable
from shared.domain.voiding import cause_of
from shared.http.pieces import InPieces
from shared.redis_layout.end_moves import LaterEnd
from shared.redis_layout.item_hash import public_item

router = APIRouter(prefix="/api/v1/items", tags=["items"])

_operation_decoder = msgspec.json.Decoder(OperationBody)
_extend_decoder = msgspec.json.Decoder(ExtendBody)


# The patterns are checked by the routes themselves, whose refusal says what is allowed instead of naming a pattern.
ItemIdPath = Annotated[
    str,
    Path(description="The item.", json_schema_extra={"pattern": names.ITEM_ID_PATTERN, "examples": ["demo-1"]}),
]
BidIdPath = Annotated[
    str,
    Path(description="The bid, by its `bid_id`.", json_schema_extra={"pattern": names.STANDING_BID_ID_PATTERN}),
]
Limit = Annotated[int, Query(ge=1, le=PAGE_MAX, description="How many at most.")]
_CURSOR: Final = "The `next_cursor` of the page before, unchanged; without it the first page."
HistoryCursor = Annotated[str | SkipJsonSchema[None], Query(max_length=64, description=_CURSOR)]


def _answers(
    status: int, description: str, model: type[msgspec.Struct], *problems: int, **more: Any
) -> dict[int | str, dict[str, Any]]:
    """Responses for OpenAPI. ``problems`` are statuses alone: OpenAPI has their descriptions."""
    told: dict[int | str, dict[str, Any]] = {problem: {} for problem in problems}
    told[status] = {"description": description, "content": json_content(model), **more}
    return told


def _json(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(content), status, headers, media_type="application/json")


_EXAMPLE: Final = {
    "name": "Desk lamp",
    "start_price": 5,
    "reserve_price": 20,
    "increment": {"kind": "flat", "value": 0.5},
    "duration_s": 3_600,
    "soft_close": {"trigger_s": 60, "extend_s": 120},
}


@router.post(
    "",
    status_code=201,
    summary="Create an item",
    responses=_answers(
        201,
        "The item",
        ItemAnswer,
        *(409, 422, 503),
        headers={"Location": {"description": "Where it is.", "schema": {"type": "string"}, "required": True}},
        links={
            name: {"operationId": name, "parameters": {"item_id": "$response.body#/id"}}
            for name in ("get_item", "place_bid", "get_history", "pause_item", "cancel_item")
        },
    ),
    openapi_extra={"requestBody": request_body(NewItemBody, _EXAMPLE)},
)
async def create_item(request: Request) -> Response:
    """Open an auction, now or at `start_time`. Times are RFC 3339 with an offset, between 1970 and 2100.

    With an `id` of your own a repetition after a time-out creates no second item: 409 says that it is there.
    """
    context = context_of(request)
    new = read_new_item(await request.body(), permit_of(request), context.images.hosts)
    item = await items_with_images.create_item(context, new)
    return _json(public_item(item), 201, {"location": f"{router.prefix}/{item.terms.item_id}"})


@router.get(
    "",
    summary="List items",
    responses=_answers(
        200,
        "A page of items",
        ItemPage,
        *(422, 503),
        links={"next": {"operationId": "list_items", "parameters": {"cursor": "$response.body#/next_cursor"}}},
    ),
)
async def list_items(
    request: Request,
    status: Annotated[Status | SkipJsonSchema[None], Query(description="Only items of this status.")] = None,
    sort: Annotated[
        Literal["newest", "ending", "price"],
        Query(
            description="Newest first, soonest end first, or highest price first. Prices of different currencies "
            "cannot be compared: by price, items are in the order of their currencies (AUD, EUR, USD) first."
        ),
    ] = "newest",
    cursor: Annotated[str | SkipJsonSchema[None], Query(max_length=512, description=_CURSOR)] = None,
    limit: Limit = PAGE_DEFAULT,
) -> Response:
    """Items in the archive, with their live state. A new item appears within half a second. A page may have fewer items
    than `limit`, where they take too many bytes; it has a `next_cursor` then.

    Items that Redis has lost, and closed ones that cannot be read now, have no state to be shown: a page names them in
    `being_rebuilt` instead. 503 BEING_REBUILT says that Redis has lost more than single items, and has nothing of this
    page.
    """
    return await page_of_items(request, Wish(status, sort, cursor or None, limit))


async def page_of_items(request: Request, wish: Wish, headers: dict[str, str] | None = None) -> Response:
    """A page, charged to whoever asks for it. Raises what :meth:`Listing.page` does, and RateLimited. ``headers``: of
    the answer, beside the usual ones."""
    context, account = context_of(request), permit_of(request).account
    # One unit was charged for the request.
    account.charge(-(-wish.limit // ITEMS_PER_UNIT) - 1)
    payer = account.payer or context.rates.address(peer_of(request.scope), request.headers.raw)
    return InPieces(await context.listing.page(wish, payer), headers=headers, media_type="application/json")


@router.get(
    "/{item_id}",
    summary="Read an item",
    responses=_answers(200, "The item", ItemAnswer, 404, 422, 503),
)
async def get_item(
    request: Request,
    item_id: ItemIdPath,
    may_open: Annotated[
        bool,
        Query(description="`false`: an unknown item is 404, also where `OPEN_CATALOGUE` would open it."),
    ] = True,
) -> Response:
    """The item as Redis holds it, so never older than the last accepted bid. Closed items come from the archive."""
    return _json(public_item(await context_of(request).items.get(checked_item_id(item_id), may_open=may_open)))


@router.get(
    "/{item_id}/bids",
    summary="The item's accepted bids, newest first",
    responses=_answers(
        200,
        "A page of bids",
        HistoryPage,
        *(404, 410, 422, 503),
        links={
            "next": {
                "operationId": "get_history",
                "parameters": {"item_id": "$request.path.item_id", "cursor": "$response.body#/next_cursor"},
            },
        },
    ),
)
async def get_history(
    request: Request, item_id: ItemIdPath, cursor: HistoryCursor = None, limit: Limit = PAGE_DEFAULT
) -> Response:
    """Bidders appear under an alias that is stable within the item.

    410 HISTORY_RETIRED: the item was over long ago, and its bids are in an export of the operator's alone. The answer
    names it, and the hash of the item's last event. The item itself is told as before.
    """
    context: Context = context_of(request)
    cursor = cursor or None
    if cursor is not None:
        parse_cursor(cursor)  # wherever the item is, a malformed one is refused in the same words
    for _ in range(READS_MAX):
        found = await context.items.find(checked_item_id(item_id), may_open=False)
        if found.has_left:
            content = await context.items.closed.history(item_id, cursor=cursor, limit=limit)
            if content is not None:
                if (retired := decode_retired(content)) is not None:
                    raise retired.error(item_id)
                return Response(content, media_type="application/json")
            continue  # it came back, for a void
        page = await context.history.page(item_id, cursor=cursor, limit=limit)
        # 1. The item is read, and the archive's bids. 2. Redis is wiped, or goes back. 3. What is not archived yet is
        # not found, though it was published and comes back. Or it was archived after 1, and the item has left since.
        if await context.items.is_same(found.item):
            return _json(public_history(found.item, page.bids, page.next_cursor, partial=page.partial))
    raise Unavailable(KEEPS_MOVING)


@router.get(
    "/{item_id}/named-bids",
    summary="The item's accepted bids with the names of the bidders",
    responses=_answers(200, "A page of bids", NamedBidsPage, *(404, 410, 422, 503)),
)
async def get_named_bids(
    request: Request, item_id: ItemIdPath, cursor: HistoryCursor = None, limit: Limit = PAGE_DEFAULT
) -> Response:
    """As the history, and who is behind each alias: for operators and auditors. 410 as there."""
    context: Context = context_of(request)
    for _ in range(READS_MAX):
        found = await context.items.find(checked_item_id(item_id), may_open=False)
        # The archive has all bids of an item that has left Redis.
        page = await context.history.page(item_id, cursor=cursor or None, limit=limit)
        if found.has_left and (retired := await context.archive.retired(item_id)) is not None:
            raise retired.error(item_id)
        # As in the history.
        if found.has_left or await context.items.is_same(found.item):
            named = named_history(found.item, page.bids, page.next_cursor, partial=page.partial)
            return _json(named, headers={"cache-control": "no-store"})
    raise Unavailable(KEEPS_MOVING)


def _operation(body: bytes, permit: Permit) -> tuple[str, str]:
    """Why, and who says so."""
    return _reasoned(decode_body(_operation_decoder, body, '{"reason": "the lot was damaged"}'), permit)


def _reasoned(operation: OperationBody, permit: Permit) -> tuple[str, str]:
    if not operation.reason.strip() or HAS_CONTROL_BUT_LINES.search(operation.reason):
        raise InvalidInput("reason: must not be blank, and may have no control characters but tabs and line breaks")
    by = permit.actor(None if operation.by is msgspec.UNSET else operation.by, "operator")
    if not names.is_user_id(by):
        raise InvalidInput(f"by, as {USER_ID_RULE}")
    return operation.reason, by


_OPERATION_DOCS: Final[dict[str, Any]] = {
    "responses": _answers(200, "The item after it", ItemAnswer, 404, 409, 422, 503),
    "openapi_extra": {"requestBody": request_body(OperationBody, {"reason": "a question came up"})},
}


@router.post("/{item_id}/pause", summary="Pause an item", **_OPERATION_DOCS)
async def pause_item(request: Request, item_id: ItemIdPath) -> Response:
    """Stop the bidding and keep the remaining time."""
    return await _transition(request, "pause", item_id)


@router.post("/{item_id}/resume", summary="Resume an item", **_OPERATION_DOCS)
async def resume_item(request: Request, item_id: ItemIdPath) -> Response:
    """Go on; the end moves by the length of the pause."""
    return await _transition(request, "resume", item_id)


_EXTEND_DOCS: Final[dict[str, Any]] = {
    "responses": _OPERATION_DOCS["responses"],
    "openapi_extra": {
        "requestBody": request_body(ExtendBody, {"by_s": 600, "reason": "the room has asked for time"}),
        "parameters": [
            {
                "name": "Idempotency-Key",
                "in": "header",
                "description": "Under one key a request moves the end once; an item knows the newest 16.",
                "schema": {"type": "string", "pattern": names.IDEMPOTENCY_KEY_PATTERN},
            }
        ],
    },
}


@router.post("/{item_id}/extend", summary="Move an item's end later", **_EXTEND_DOCS)
async def extend_item(request: Request, item_id: ItemIdPath) -> Response:
    """To `end_time`, or by `by_s` seconds; never earlier, and by at most 30 days in all.

    A hard end moves along. The number of times that late bids may still extend it stays the same.
    """
    context, permit = context_of(request), permit_of(request)
    sent = decode_body(_extend_decoder, await request.body(), '{"by_s": 600, "reason": "the room has asked for time"}')
    if (sent.end_time is None) == (sent.by_s is None):
        raise TermsInvalid("end_time", "send end_time or by_s, one of them")
    reason, by = _reasoned(sent, permit)
    key = idempotency_key(request.headers.raw)
    to = LaterEnd(instant_of("end_time", sent.end_time), None if sent.by_s is None else sent.by_s * 1_000_000, key)
    await _require_seller(context, permit, item_id)
    return _json(public_item(await context.operations.extend(checked_item_id(item_id), to, reason=reason, by=by)))


@router.post("/{item_id}/cancel", summary="Cancel an item", **_OPERATION_DOCS)
async def cancel_item(request: Request, item_id: ItemIdPath) -> Response:
    """Withdraw the item; final."""
    return await _transition(request, "cancel", item_id)


async def _transition(request: Request, name: Transition, item_id: str) -> Response:
    context, permit = context_of(request), permit_of(request)
    reason, by = _operation(await request.body(), permit)
    await _require_seller(context, permit, item_id)
    item = await context.operations.transition(name, checked_item_id(item_id), reason=reason, by=by)
    return _json(public_item(item))


async def _require_seller(context: Context, permit: Permit, item_id: str) -> None:
    """Raises Forbidden where a seller may not act on the item."""
    if permit.own_id is not None:
        # Who sells an item never changes, so it may be read before.
        found = await context.items.find(checked_item_id(item_id), may_open=False)
        permit.require_seller(found.item.terms.seller_id)


# An automatic bid has a slash in its id. The route takes it, to say why it cannot be struck.
@router.post(
    "/{item_id}/bids/{bid_id:path}/void",
    summary="Strike a bid",
    responses=_OPERATION_DOCS["responses"] | {410: {}},
    openapi_extra=_OPERATION_DOCS["openapi_extra"],
)
async def void_bid(request: Request, item_id: ItemIdPath, bid_id: BidIdPath) -> Response:
    """Strike an accepted bid, a raised maximum among them: the item becomes what its other accepted bids make it.

    Automatic bids that came from its maximum go with it; an earlier maximum of the same bidder comes back. The price
    may fall. After the close nobody is promoted: the item becomes unsold, and the `voided` event names who would have
    won.

    410 HISTORY_RETIRED: the item was over long ago, and its bids are in its export alone.
    """
    if cause_of(bid_id) is not None:
        raise BidNotFound(checked_item_id(item_id), bid_id, cause=cause_of(bid_id))
    if not names.is_standing_bid_id(bid_id):
        raise InvalidInput("bid id: 1 to 64 characters of A-Z a-z 0-9 _ . : @ -, maybe behind ~, not all of them dots")
    reason, by = _operation(await request.body(), permit_of(request))
    item = await context_of(request).operations.void(checked_item_id(item_id), bid_id, reason=reason, by=by)
    return _json(public_item(item))
