"""What belongs to the caller: the watch list, the items on which they have bid, and those that they sell."""

from __future__ import annotations

from typing import Annotated, Any, Final

from fastapi import APIRouter, Query, Request, Response
from pydantic.json_schema import SkipJsonSchema

from api_gateway.changes.new_items import checked_item_id
from api_gateway.context import context_of
from api_gateway.contract.documented import ItemPage, json_content
from api_gateway.identity.access import permit_of
from api_gateway.own.bid_on import bid_on
from api_gateway.own.errors import IdentityRequired
from api_gateway.own.schemas import BidOnItem, OwnBidsPage, WatchedAnswer, WatchedItem, WatchListAnswer
from api_gateway.own.watch_lists import LIST_ITEMS_MAX
from api_gateway.reads.listing import Wish
from api_gateway.routes.items import ItemIdPath, Limit, page_of_items
from api_gateway.routes.ruling_requests import PRIVATE, SellerIdPath, as_json, own_seller
from shared.archive_reads.history import PAGE_DEFAULT
from shared.domain.auction import Status
from shared.timefmt import to_rfc3339

router = APIRouter(prefix="/api/v1", tags=["own"])

_WATCHED: Final = "/me/watch-list/{item_id}"
_UNITS_OF_LIST: Final = 5
"""How many units a caller is charged for reading a watch list: a full one takes PostgreSQL some 1.5 ms."""

Cursor = Annotated[
    str | SkipJsonSchema[None],
    Query(max_length=512, description="The `next_cursor` of the page before, unchanged; without it the first page."),
]


def _docs(description: str, answer: Any, *problems: int, **more: Any) -> dict[int | str, dict[str, Any]]:
    told: dict[int | str, dict[str, Any]] = {problem: {} for problem in problems}
    return told | {200: {"description": description, "content": json_content(answer), **more}}


def _caller(request: Request) -> str:
    """Who calls.

    Raises:
        IdentityRequired: nobody is asked who they are.
    """
    principal = permit_of(request).principal
    if principal is None:
        raise IdentityRequired
    return principal.user_id


@router.get("/me/watch-list", summary="What do I watch?", responses=_docs("The list", WatchListAnswer, 403, 503))
async def get_watch_list(request: Request) -> Response:
    """The caller's watch list. Items that are over stay on it for 30 days. With `AUTH_MODE=open` nobody has one."""
    user_id = _caller(request)
    # One unit was charged for the request.
    permit_of(request).account.charge(_UNITS_OF_LIST - 1)
    watched = await context_of(request).watch_lists.read(user_id)
    items = [WatchedItem(each.item_id, to_rfc3339(each.since_us)) for each in watched]
    return as_json(WatchListAnswer(items, LIST_ITEMS_MAX))


@router.put(
    _WATCHED, summary="Watch an item", responses=_docs("It is on the list", WatchedAnswer, 403, 404, 409, 422, 503, 507)
)
async def watch_item(request: Request, item_id: ItemIdPath) -> Response:
    """Put an item on the caller's watch list: at most 500. A repetition changes nothing."""
    context, user_id = context_of(request), _caller(request)
    # An item that does not exist must take no room on a list.
    await context.items.find(checked_item_id(item_id), may_open=False)
    await context.watch_lists.add(user_id, item_id)
    return as_json(WatchedAnswer(item_id, True))


@router.delete(
    _WATCHED,
    summary="Watch an item no longer",
    responses=_docs("It is not on the list", WatchedAnswer, 403, 422, 503),
)
async def unwatch_item(request: Request, item_id: ItemIdPath) -> Response:
    """Take an item off the caller's watch list. A repetition changes nothing."""
    user_id = _caller(request)
    await context_of(request).watch_lists.remove(user_id, checked_item_id(item_id))
    return as_json(WatchedAnswer(item_id, False))


@router.get(
    "/me/bids",
    summary="On what have I bid?",
    responses=_docs(
        "A page of items",
        OwnBidsPage,
        *(403, 422, 503),
        links={"next": {"operationId": "list_own_bids", "parameters": {"cursor": "$response.body#/next_cursor"}}},
    ),
)
async def list_own_bids(request: Request, cursor: Cursor = None, limit: Limit = PAGE_DEFAULT) -> Response:
    """The items on which a bid of the caller was accepted, the item with the newest first bid first; also items whose
    bid was struck since.

    It comes from the archive, so a bid of the last seconds may not be there yet. With `AUTH_MODE=open` nobody has such
    a list.
    """
    asking, user_id = context_of(request).archive.asking, _caller(request)
    page = await bid_on(asking, user_id, cursor=cursor or None, limit=limit)
    items = [BidOnItem(each.item_id, to_rfc3339(each.at_us)) for each in page.items]
    return as_json(OwnBidsPage(items, page.next_cursor))


@router.get(
    "/sellers/{seller_id}/items",
    summary="List the items of a seller",
    responses=_docs(
        "A page of items",
        ItemPage,
        *(422, 503),
        links={
            "next": {
                "operationId": "list_items_of_seller",
                "parameters": {
                    "seller_id": "$request.path.seller_id",
                    "cursor": "$response.body#/next_cursor",
                },
            }
        },
    ),
)
async def list_items_of_seller(
    request: Request,
    seller_id: SellerIdPath,
    status: Annotated[Status | SkipJsonSchema[None], Query(description="Only items of this status.")] = None,
    cursor: Cursor = None,
    limit: Limit = PAGE_DEFAULT,
) -> Response:
    """Items of the seller in any state, the newest first, with their live state. Sellers list their own, operators and
    auditors anybody's. A new item appears within half a second, and otherwise a page is as that of all items.
    """
    wish = Wish(status, "newest", cursor or None, limit, own_seller(request, seller_id))
    return await page_of_items(request, wish, PRIVATE)
