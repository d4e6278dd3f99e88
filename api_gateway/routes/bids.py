"""``/api/v1/bids/by-key``: what became of a bid whose answer got lost. (The bid itself is decided on the hot path.)"""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic.json_schema import SkipJsonSchema
from redis.exceptions import RedisError

from api_gateway.context import context_of
from api_gateway.contract.documented import BidAcceptedAnswer, BidRefusedAnswer, json_content
from api_gateway.contract.schemas import USER_ID_RULE
from api_gateway.engine.bids.stored import read_verdict
from api_gateway.engine.items import KEEPS_MOVING, READS_MAX
from api_gateway.hot_path import render
from api_gateway.identity.access import permit_of
from shared import names
from shared.clients.redis import told_of
from shared.domain.errors import InvalidInput, OutcomeUnknown, Unavailable
from shared.domain.money import exponent_of
from shared.http.problems import problem
from shared.redis_layout.stored_verdicts import amount_of
from shared.redis_layout.verdicts import ACCEPTED

router = APIRouter(prefix="/api/v1/bids", tags=["bids"])


@router.get(
    "/by-key/{key:path}",
    summary="Did my bid land?",
    responses={
        200: {
            "content": json_content(BidAcceptedAnswer, BidRefusedAnswer),
            "description": "The stored verdict, accepted or refused",
        },
        **{status: {} for status in (404, 422, 503)},
    },
)
async def get_verdict(
    request: Request,
    key: Annotated[
        str,
        Path(
            description="The bid's Idempotency-Key or `bid_id`.",
            json_schema_extra={"pattern": names.IDEMPOTENCY_KEY_PATTERN, "examples": ["ann-1"]},
        ),
    ],
    item_id: Annotated[
        str,
        Query(description="The item.", json_schema_extra={"pattern": names.ITEM_ID_PATTERN, "examples": ["demo-1"]}),
    ],
    user_id: Annotated[
        str | SkipJsonSchema[None],
        Query(
            description="Who bid; without it the bid of this id, or whoever used the key first.",
            json_schema_extra={"pattern": names.USER_ID_PATTERN, "examples": ["ann"]},
        ),
    ] = None,
) -> Response:
    """The verdict that is stored under an Idempotency-Key or bid_id, word for word.

    503 OUTCOME_UNKNOWN says that the bid was accepted, and that it is not yet as safe as an acknowledged bid is here.

    404 says that no bid under this key was decided yet, or that it was refused some time ago: of refusals only the
    latest are kept. Where several bidders used the same key on an item, `user_id` says whose bid is meant. Without it
    the bid of this `bid_id` is told, or else that of the first who sent this Idempotency-Key; an accepted one before a
    refused one.
    """
    if not names.is_item_id(item_id):
        raise InvalidInput("item_id: 1 to 64 characters of A-Z a-z 0-9 _ -")
    if not names.is_idempotency_key(key):
        raise InvalidInput("key: 1 to 255 visible ASCII characters, not all of them dots")
    if user_id is not None and not names.is_user_id(user_id):
        raise InvalidInput(USER_ID_RULE)
    user_id = permit_of(request).user(user_id, "user_id")
    context = context_of(request)
    for _ in range(READS_MAX):
        found = await context.items.find(item_id, may_open=False)
        item = found.item
        if found.has_left:
            # All of it is archived, so an accepted bid is as safe as any can be.
            stored = await context.items.closed.verdict(item_id, user_id, key)
            break
        try:
            stored = await read_verdict(context.redis, item_id, user_id, key)
        except (RedisError, OSError, TimeoutError) as error:
            raise Unavailable(f"Redis cannot be asked: {told_of(error)}") from error
        if stored is not None and stored.line.startswith(ACCEPTED):
            await _secured(request, item_id)
            break
        # 1. The item is read, its shard is open. 2. Redis fails over to a replica that lacks the bid, and the shard is
        # closed. 3. The key is not found, but the bid was published and comes back. Or an earlier refusal is found,
        # though the bid was sent again after it and accepted. Nor is it found where the item has left since 1.
        if await context.items.is_same(item):
            break
    else:
        raise Unavailable(KEEPS_MOVING)
    if stored is None:
        return problem(404, "KEY_NOT_FOUND", "no verdict is kept under this key; send the bid with this key")
    exponent, asked = exponent_of(item.terms.currency), amount_of(stored.fingerprint)
    _, body = render(stored.line, item_id, exponent, asked, key)
    return Response(body, headers={"cache-control": "no-store"}, media_type="application/json")


async def _secured(request: Request, item_id: str) -> None:
    """Wait until the bid is safe: to tell of an accepted bid is to acknowledge it."""
    secure = context_of(request).secure
    if secure is None:
        return
    try:
        await secure(names.shard_of(item_id))
    except (RedisError, OSError, TimeoutError) as error:
        raise OutcomeUnknown from error
