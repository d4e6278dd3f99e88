"""``/api/v1/bids/by-key``: what became of a bid whose answer got lost. (The bid itself is decided on the hot path.)"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Annotated, cast

from fastapi import APIRouter, Path, Query, Request, Response
from pydantic.json_schema import SkipJsonSchema
from redis.exceptions import RedisError

from api_gateway.context import context_of
from api_gateway.engine.verdicts import ACCEPTED
from api_gateway.hot_path import render
from api_gateway.problems import respond
from api_gateway.schemas import BidAcceptedAnswer, BidRefusedAnswer, json_content
from shared import names
from shared.domain.errors import InvalidInput, OutcomeUnknown, Unavailable
from shared.domain.money import exponent_of

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
            description="Who bid; without it whoever used the key first.",
            json_schema_extra={"pattern": names.USER_ID_PATTERN, "examples": ["ann"]},
        ),
    ] = None,
) -> Response:
    """The verdict that is stored under an Idempotency-Key or bid_id, word for word.

    503 OUTCOME_UNKNOWN says that the bid was accepted, and that it is not yet as safe as an acknowledged bid is here.

    404 says that no bid under this key was decided yet. Where several bidders used the same key on an item, `user_id`
    says whose bid is meant; without it the first one's is told.
    """
    if not names.is_item_id(item_id):
        raise InvalidInput("item_id: 1 to 64 characters of A-Z a-z 0-9 _ -")
    if not names.is_idempotency_key(key):
        raise InvalidInput("key: 1 to 255 visible ASCII characters")
    if user_id is not None and not names.is_user_id(user_id):
        raise InvalidInput("user_id: 1 to 64 characters of A-Z a-z 0-9 _ . @ -")
    context = context_of(request)
    item = await context.items.get(item_id, may_open=False)
    stored = await _stored(request, item_id, user_id, key)
    if stored is None:
        return respond(404, "KEY_NOT_FOUND", "no bid under this key was decided; send the bid with this key")
    fingerprint, _, line = stored.partition(b"\n")
    if line.startswith(ACCEPTED):
        await _secured(request, item_id)
    amount = fingerprint.partition(b",")[0]
    _, body = render(line, item_id, exponent_of(item.terms.currency), int(amount) if amount else None, key)
    return Response(body, media_type="application/json")


async def _secured(request: Request, item_id: str) -> None:
    """To tell of an accepted bid is to acknowledge it."""
    secure = context_of(request).secure
    if secure is None:
        return
    try:
        await secure(names.shard_of(item_id))
    except (RedisError, OSError, TimeoutError) as error:
        raise OutcomeUnknown from error


async def _stored(request: Request, item_id: str, user_id: str | None, key: str) -> bytes | None:
    redis = context_of(request).redis
    try:
        if user_id is None:
            owner = await cast("Awaitable[bytes | None]", redis.get(names.key_owner_key(item_id, key)))
            if owner is None:
                return None
            user_id = owner.decode()
        return await cast("Awaitable[bytes | None]", redis.get(names.idempotency_key(item_id, user_id, key)))
    except (RedisError, OSError, TimeoutError) as error:
        raise Unavailable(f"Redis cannot be asked: {error}") from error
