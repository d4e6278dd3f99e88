"""``/api/v1/items:batch``: many new items in one request, for imports.

Each item has the answer that it would have alone, also where it is malformed: whoever sends a file wants to know of
each line what is wrong with it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Annotated, Final

import msgspec
from fastapi import APIRouter, Request, Response
from msgspec import Meta, Raw

from api_gateway.changes.items_with_images import create_item
from api_gateway.changes.new_items import read_new_item
from api_gateway.context import Context, context_of
from api_gateway.contract.documented import ItemBatchAnswer, json_content, request_body
from api_gateway.contract.problems import problem_of
from api_gateway.contract.schemas import BATCH_MAX, ItemBatch, decode_body
from api_gateway.engine.creation.new_item import NewItem, require_future_end
from api_gateway.identity.access import Permit, permit_of
from api_gateway.images.images import Images
from shared.domain.errors import BiddingError, InvalidInput
from shared.http.pieces import InPieces
from shared.http.problems import INTERNAL_ERROR, INTERNAL_ERROR_DETAIL, problem_body
from shared.logs import about
from shared.redis_layout.item_hash import ItemState, public_item

logger = logging.getLogger(__name__)
router = APIRouter(prefix="/api/v1", tags=["items"])

PATH: Final = f"{router.prefix}/items:batch"
BYTES_MAX: Final = 1024 * 1024
"""The largest body."""

_EXAMPLE: Final = {
    "items": [
        {"id": "lamp-1", "name": "Desk lamp", "start_price": 5, "duration_s": 3_600},
        {"id": "lamp-2", "name": "Floor lamp", "reserve_price": 40},
    ],
    "dry_run": False,
}
_VALID: Final = b'{"valid":true}'


class _Sent(msgspec.Struct, forbid_unknown_fields=True):
    """:class:`ItemBatch` whose items are not read yet."""

    items: Annotated[list[Raw], Meta(min_length=1, max_length=BATCH_MAX)]
    dry_run: bool = False


_decoder: Final = msgspec.json.Decoder(_Sent)
_READ_AT_ONCE: Final = 16
"""Items that are checked in one turn of the event loop: two or three milliseconds with the longest ladders."""
Answer = tuple[str | None, int, bytes]
"""The item's id, where it is known; status and body."""


@router.post(
    "/items:batch",
    summary="Create many items",
    responses={
        200: {"content": json_content(ItemBatchAnswer), "description": "The answers, in the order of the items"},
        **{status: {} for status in (422, 503)},
    },
    openapi_extra={"requestBody": request_body(ItemBatch, _EXAMPLE)},
)
async def create_items(request: Request) -> Response:
    """Up to 500 items, each answered with the `status` and the body that it would have alone: 201 with the item, 409
    where its id is taken, 422 where it is malformed.

    Give each an `id`: then the whole request can be repeated. With `dry_run` nothing is created, and 200 says that an
    item could be, unless its id is taken.
    """
    context, permit = context_of(request), permit_of(request)
    sent = decode_body(_decoder, await request.body(), msgspec.json.encode(_EXAMPLE).decode())
    permit.account.charge_items(len(sent.items))
    read = []
    for raw in sent.items:
        read.append(_read(bytes(raw), permit, context))
        if len(read) % _READ_AT_ONCE == 0:
            await asyncio.sleep(0)  # others have their turn
    if sent.dry_run:
        looked = await _with_images(read, context.images)
        answers = [_checked(one) if isinstance(one, NewItem) else one for one in looked]
    else:
        opened = [_opened(one, context) if isinstance(one, NewItem) else None for one in read]
        waiting = [answer for answer in opened if answer is not None]
        if waiting:
            await asyncio.wait(waiting)
        answers = [
            one if not isinstance(one, NewItem) else _answer(one, answer)
            for one, answer in zip(read, opened, strict=True)
        ]
    told = b",".join(
        b'{"id":%b,"status":%d,"answer":%b}' % (msgspec.json.encode(item_id), status, body)
        for item_id, status, body in answers
    )
    return InPieces(b'{"results":[%b]}' % told, media_type="application/json")


async def _with_images(read: list[NewItem | Answer], images: Images) -> list[NewItem | Answer]:
    """The same, with a refusal in the place of each item whose images are not there."""

    async def looked(one: NewItem | Answer) -> NewItem | Answer:
        if isinstance(one, NewItem) and one.image_urls:
            try:
                await images.require(one.image_urls)
            except BiddingError as error:
                return one.terms.item_id, *problem_of(error)[:2]
        return one

    return await asyncio.gather(*map(looked, read))


def _opened(item: NewItem, context: Context) -> asyncio.Future[ItemState]:
    if item.image_urls:
        return asyncio.create_task(create_item(context, item), name="create-item")
    return context.items.openings.open(item)


def _read(body: bytes, permit: Permit, context: Context) -> NewItem | Answer:
    bytes_max = context.settings.body_bytes_max
    try:
        if len(body) > bytes_max:
            raise InvalidInput(f"an item may have {bytes_max} bytes")
        return read_new_item(body, permit, context.images.hosts)
    except BiddingError as error:
        return None, *problem_of(error)[:2]


def _checked(item: NewItem) -> Answer:
    """The answer of a dry run. Whether the end is in the future is decided by the clock of Redis when an item is
    created; here by that of this machine."""
    try:
        require_future_end(item, time.time_ns() // 1_000)
    except BiddingError as error:
        return item.terms.item_id, *problem_of(error)[:2]
    return item.terms.item_id, 200, _VALID


def _answer(item: NewItem, opened: asyncio.Future[ItemState] | None) -> Answer:
    item_id = item.terms.item_id
    assert opened is not None
    try:
        return item_id, 201, msgspec.json.encode(public_item(opened.result()))
    except BiddingError as error:
        return item_id, *problem_of(error)[:2]
    except Exception:
        logger.exception("item %s of a batch", item_id, extra=about(item=item_id))
        return item_id, 500, problem_body(500, INTERNAL_ERROR, INTERNAL_ERROR_DETAIL)
