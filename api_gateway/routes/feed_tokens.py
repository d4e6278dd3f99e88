"""``/api/v1/feed-token``: tokens that tell the live feed who a bidder is. Only with ``OPEN_IDENTITY``."""

from __future__ import annotations

import time
from typing import Final

import msgspec
from fastapi import APIRouter, Request, Response

from api_gateway.context import context_of
from api_gateway.documented import json_content, request_body
from api_gateway.schemas import USER_ID_RULE, FeedTokenAnswer, FeedTokenBody, decode_body
from shared import names
from shared.domain.errors import InvalidInput
from shared.feed_tokens import LIFETIME_S, Identity, mint
from shared.http.problems import problem
from shared.timefmt import to_rfc3339

router = APIRouter(prefix="/api/v1", tags=["live feed"])


_decoder: Final = msgspec.json.Decoder(FeedTokenBody)


@router.post(
    "/feed-token",
    status_code=201,
    summary="Become a bidder of the live feed",
    responses={
        201: {"description": "The token", "content": json_content(FeedTokenAnswer)},
        **{status: {} for status in (403, 422, 503)},
    },
    openapi_extra={"requestBody": request_body(FeedTokenBody, {"user_id": "ann"})},
)
async def make_feed_token(request: Request) -> Response:
    """A token for the private channel of the live feed, for whichever user id is asked for.

    That is for trying the platform out, so only with `OPEN_IDENTITY=true`; and it never tells a maximum. In production
    the operator's own site, which knows who is logged in, signs the tokens.
    """
    settings = context_of(request).settings
    if not settings.open_identity:
        detail = (
            "tokens come from the site that knows who you are; this one gives them to nobody (OPEN_IDENTITY is off)"
        )
        return problem(403, "IDENTITY_REQUIRED", detail)
    body = decode_body(_decoder, await request.body(), '{"user_id": "ada"}')
    if not names.is_user_id(body.user_id):
        raise InvalidInput(USER_ID_RULE)
    if not settings.feed_token_secret:
        return problem(503, "PRIVATE_CHANNEL_OFF", "there is no FEED_TOKEN_SECRET to sign tokens with")
    expires_s = int(time.time()) + LIFETIME_S
    answer = FeedTokenAnswer(
        token=mint(settings.feed_token_secret.get_secret_value(), Identity(body.user_id, expires_s)),
        expires=to_rfc3339(expires_s * 1_000_000),
        expires_in=LIFETIME_S,
    )
    # A token is a secret of its bearer: no cache may keep it.
    return Response(msgspec.json.encode(answer), 201, {"cache-control": "no-store"}, "application/json")
