"""``/api/v1/items``: create, read, list, history."""

from __future__ import annotations

import secrets
from typing import Annotated, Any, Final, Literal

import msgspec
from fastapi import APIRouter, Path, Query, Request, Response
from pydantic.json_schema import SkipJsonSchema

from api_gateway.context import Context, context_of
from api_gateway.documented import ItemAnswer, ItemPage, json_content, request_body
from api_gateway.engine.closed.closed_items import ArchiveAway
from api_gateway.engine.item_scripts import Transition
from api_gateway.engine.items import KEEPS_MOVING, READS_MAX, NewItem
from api_gateway.schemas import (
    USER_ID_RULE,
    HistoryPage,
    IncrementBody,
    NewItemBody,
    OperationBody,
    SoftCloseBody,
    decode_body,
    optional_amount,
)
from shared import names
from shared.archive_reads.history import PAGE_DEFAULT, PAGE_MAX, parse_cursor, public_history
from shared.domain.auction import Status, Terms
from shared.domain.errors import BidNotFound, InvalidInput, TermsInvalid, Unavailable
from shared.domain.increments import BASIS_POINTS, Increment, default_ladder
from shared.domain.money import MINOR_MAX, exponent_of
from shared.domain.soft_close import SoftClose
from shared.domain.voiding import cause_of
from shared.redis_layout.item_hash import public_item
from shared.timefmt import INSTANT_MAX_US, from_rfc3339

router = APIRouter(prefix="/api/v1/items", tags=["items"])

_PERCENT_DECIMALS: Final = 2
_SECOND_US: Final = 1_000_000
_item_decoder = msgspec.json.Decoder(NewItemBody)
_operation_decoder = msgspec.json.Decoder(OperationBody)


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


def _answers(
    status: int, description: str, model: type[msgspec.Struct], *problems: int, **more: Any
) -> dict[int | str, dict[str, Any]]:
    """Responses for OpenAPI. ``problems`` are statuses alone: OpenAPI has their descriptions."""
    told: dict[int | str, dict[str, Any]] = {problem: {} for problem in problems}
    told[status] = {"description": description, "content": json_content(model), **more}
    return told


def _json(content: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(content), status, headers, media_type="application/json")


def _checked(item_id: str) -> str:
    if not names.is_item_id(item_id):
        raise InvalidInput("item id: 1 to 64 characters of A-Z a-z 0-9 _ -")
    return item_id


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
    body = decode_body(_item_decoder, await request.body())
    item = await context.items.create(new_item(body))
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
        Query(description="Newest first, soonest end first, or highest price first."),
    ] = "newest",
    cursor: Annotated[str | SkipJsonSchema[None], Query(max_length=512, description=_CURSOR)] = None,
    limit: Limit = PAGE_DEFAULT,
) -> Response:
    """Items in the archive, with their live state. A new item appears within milliseconds.

    Items that Redis has lost, and closed ones that cannot be read now, have no state to be shown: a page names them in
    `being_rebuilt` instead. 503 BEING_REBUILT says that Redis has lost more than single items, and has nothing of this
    page.
    """
    context = context_of(request)
    ids, next_cursor = await context.archive.list_items(status=status, sort=sort, cursor=cursor, limit=limit)
    live = await context.items.get_many(ids) if ids else []
    found = {item_id: item for item_id, item in zip(ids, live, strict=True) if item is not None}
    missing = [item_id for item_id in ids if item_id not in found]
    if missing:
        try:
            found |= await context.items.closed.find_many(missing)
        except ArchiveAway:
            # Which of them have left Redis cannot be told now. The page has the others, and none is noted as lost.
            pass
        else:
            missing = [item_id for item_id in ids if item_id not in found]
            await context.items.note_missing(ids, missing)
    shown = [public_item(found[item_id]) for item_id in ids if item_id in found]
    return _json({"items": shown, "next_cursor": next_cursor, "being_rebuilt": missing})


@router.get(
    "/{item_id}",
    summary="Read an item",
    responses=_answers(200, "The item", ItemAnswer, 404, 422, 503),
)
async def get_item(request: Request, item_id: ItemIdPath) -> Response:
    """The item as Redis holds it, so never older than the last accepted bid. Closed items come from the archive."""
    return _json(public_item(await context_of(request).items.get(_checked(item_id))))


@router.get(
    "/{item_id}/bids",
    summary="The item's accepted bids, newest first",
    responses=_answers(
        200,
        "A page of bids",
        HistoryPage,
        *(404, 422, 503),
        links={
            "next": {
                "operationId": "get_history",
                "parameters": {"item_id": "$request.path.item_id", "cursor": "$response.body#/next_cursor"},
            },
        },
    ),
)
async def get_history(
    request: Request,
    item_id: ItemIdPath,
    cursor: Annotated[str | SkipJsonSchema[None], Query(max_length=64, description=_CURSOR)] = None,
    limit: Limit = PAGE_DEFAULT,
) -> Response:
    """Bidders appear under an alias that is stable within the item."""
    context: Context = context_of(request)
    cursor = cursor or None
    if cursor is not None:
        parse_cursor(cursor)  # wherever the item is, a malformed one is refused in the same words
    for _ in range(READS_MAX):
        found = await context.items.find(_checked(item_id), may_open=False)
        if found.has_left:
            content = await context.items.closed.history(item_id, cursor=cursor, limit=limit)
            if content is not None:
                return Response(content, media_type="application/json")
            continue  # it came back, for a void
        page = await context.history.page(item_id, cursor=cursor, limit=limit)
        # 1. The item is read, and the archive's bids. 2. Redis is wiped, or goes back. 3. What is not archived yet is
        # not found, though it was published and comes back. Or it was archived after 1, and the item has left since.
        if await context.items.is_same(found.item):
            currency = found.item.terms.currency
            return _json(public_history(item_id, currency, page.bids, page.next_cursor, partial=page.partial))
    raise Unavailable(KEEPS_MOVING)


def _operation(body: bytes) -> OperationBody:
    operation = decode_body(_operation_decoder, body, '{"reason": "the lot was damaged"}')
    if not operation.reason.strip() or "\0" in operation.reason:
        raise InvalidInput("reason: must not be blank, and must not hold NUL")
    if not names.is_user_id(operation.by):
        raise InvalidInput(f"by, as {USER_ID_RULE}")
    return operation


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


@router.post("/{item_id}/cancel", summary="Cancel an item", **_OPERATION_DOCS)
async def cancel_item(request: Request, item_id: ItemIdPath) -> Response:
    """Withdraw the item; final."""
    return await _transition(request, "cancel", item_id)


async def _transition(request: Request, name: Transition, item_id: str) -> Response:
    operation = _operation(await request.body())
    item = await context_of(request).operations.transition(
        name, _checked(item_id), reason=operation.reason, by=operation.by
    )
    return _json(public_item(item))


# An automatic bid has a slash in its id. The route takes it, to say why it cannot be struck.
@router.post("/{item_id}/bids/{bid_id:path}/void", summary="Strike a bid", **_OPERATION_DOCS)
async def void_bid(request: Request, item_id: ItemIdPath, bid_id: BidIdPath) -> Response:
    """Strike an accepted bid, a raised maximum among them: the item becomes what its other accepted bids make it.

    Automatic bids that came from its maximum go with it; an earlier maximum of the same bidder comes back. The price
    may fall. After the close nobody is promoted: the item becomes unsold, and the `voided` event names who would have
    won.
    """
    if cause_of(bid_id) is not None:
        raise BidNotFound(_checked(item_id), bid_id, cause=cause_of(bid_id))
    if not names.is_standing_bid_id(bid_id):
        raise InvalidInput("bid id: 1 to 64 characters of A-Z a-z 0-9 _ . : @ -, maybe behind ~, not all of them dots")
    operation = _operation(await request.body())
    item = await context_of(request).operations.void(
        _checked(item_id), bid_id, reason=operation.reason, by=operation.by
    )
    return _json(public_item(item))


def new_item(body: NewItemBody) -> NewItem:
    """The item of a request.

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
    for field, text in (("name", body.name), ("description", body.description)):
        if "\0" in text:
            # PostgreSQL cannot store it: the item's first event would be a dead letter.
            raise TermsInvalid(field, "must not hold the character NUL")
    start_us = _instant("start_time", body.start_time)
    # An end that is counted from the start is computed by Redis; for checking the terms any start will do.
    length_us = None if body.duration_s is None else body.duration_s * _SECOND_US
    end_us = _instant("end_time", body.end_time) if length_us is None else (start_us or 0) + length_us
    terms = Terms(
        item_id=_checked(item_id),
        start_us=start_us or 0,
        currency=body.currency,
        seller_id=body.seller_id,
        start_price=optional_amount(body.start_price, exponent, "start_price", minimum_minor=0) or 0,
        reserve_price=optional_amount(body.reserve_price, exponent, "reserve_price"),
        buy_now_price=optional_amount(body.buy_now_price, exponent, "buy_now_price"),
        increment=_increment(body.increment, exponent),
        end_us=end_us,
        soft_close=_soft_close(body.soft_close, is_relative=length_us is not None),
    )
    return NewItem(
        terms,
        body.name,
        body.description,
        start_us=start_us,
        length_us=length_us,
        id_is_random=body.id is None,
    )


def _instant(field: str, text: str | None) -> int | None:
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
        hard_end_us=_instant("soft_close.hard_end", body.hard_end),
    )
