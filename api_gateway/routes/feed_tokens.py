"""``/api/v1/feed-ticket`` and ``/api/v1/feed-token``: what tells the live feed who a bidder is."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import Final

import msgspec
from fastapi import APIRouter, Request, Response
from redis.exceptions import RedisError

from api_gateway.context import Context, context_of
from api_gateway.contract.documented import json_content, request_body
from api_gateway.contract.schemas import USER_ID_RULE, FeedTicketAnswer, FeedTokenAnswer, FeedTokenBody, decode_body
from api_gateway.identity.access import permit_of
from shared import names
from shared.clients.redis import told_of
from shared.domain.errors import InvalidInput, Overloaded, Unavailable
from shared.feed_tokens import LIFETIME_S, Identity, mint
from shared.http.problems import problem
from shared.identity.jwks import name_of_key
from shared.identity.tickets import TICKET_S, give_ticket
from shared.timefmt import to_rfc3339

router = APIRouter(prefix="/api/v1", tags=["live feed"])


_decoder: Final = msgspec.json.Decoder(FeedTokenBody)
_IDENTITY_REQUIRED: Final = (
    "they come from the site that knows who you are; this one gives them to nobody (OPEN_IDENTITY is off)"
)


@router.post(
    "/feed-ticket",
    status_code=201,
    summary="Become a bidder on one connection of the live feed",
    responses={
        201: {"description": "The ticket", "content": json_content(FeedTicketAnswer)},
        **{status: {} for status in (403, 422, 503)},
    },
    openapi_extra={"requestBody": request_body(FeedTokenBody, {"user_id": "ann"})},
)
async def make_feed_ticket(request: Request) -> Response:
    """A ticket for the private channel of the live feed: say it within 30 s, in a message, on one connection.

    With `AUTH_MODE=jwt` it is for the user whom the request's own token names, until that token ends, and the feed
    tells them their own maximum, too. Otherwise, with `OPEN_IDENTITY=true`, it is for whichever user id is asked for,
    and the feed tells no maximum.
    """
    context = context_of(request)
    identity = await _identity(request, context)
    if identity is None:
        return problem(403, "IDENTITY_REQUIRED", f"tickets: {_IDENTITY_REQUIRED}")
    if not context.ration.spend(identity.user_id, asyncio.get_running_loop().time()):
        raise Overloaded("too many tickets were asked for; try again in some seconds")
    try:
        ticket = await give_ticket(context.redis, identity)
    except (RedisError, OSError, TimeoutError) as error:
        raise Unavailable(f"Redis cannot be asked: {told_of(error)}") from error
    return _secret(msgspec.json.encode(FeedTicketAnswer(ticket, TICKET_S)))


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
    """A token for the private channel of the live feed. It never tells a maximum.

    With `AUTH_MODE=jwt` it is for the user whom the request's own token names, and ends no later than that token.
    Otherwise, with `OPEN_IDENTITY=true`, it is for whichever user id is asked for, to try the platform out. Without
    either, the operator's own site, which knows who is logged in, signs the tokens.
    """
    context = context_of(request)
    identity = await _identity(request, context)
    if identity is None:
        return problem(403, "IDENTITY_REQUIRED", f"tokens: {_IDENTITY_REQUIRED}")
    secret = context.settings.feed_token_secrets.now()
    if not secret:
        return problem(503, "PRIVATE_CHANNEL_OFF", "there is no FEED_TOKEN_SECRET to sign tokens with")
    answer = FeedTokenAnswer(
        token=mint(secret, replace(identity, sees_maximum=False)),
        expires=to_rfc3339(identity.expires_s * 1_000_000),
        expires_in=max(0, identity.expires_s - int(time.time())),
    )
    return _secret(msgspec.json.encode(answer))


async def _identity(request: Request, context: Context) -> Identity | None:
    """Whom the caller becomes on the feed, and until when; None where that is not decided here.

    Raises:
        InvalidInput: there is no such user.
        Forbidden: it would be somebody else.
    """
    permit = permit_of(request)
    if permit.principal is None and not context.settings.open_identity:
        return None
    body = decode_body(_decoder, await request.body() or b"{}", '{"user_id": "ada"}')
    user_id = permit.user(None if body.user_id is msgspec.UNSET else body.user_id, "user_id")
    if user_id is None or not names.is_user_id(user_id):
        raise InvalidInput(USER_ID_RULE)
    now_s = int(time.time())
    if permit.principal is None:
        return Identity(user_id, now_s + LIFETIME_S)
    # It ends no later than the caller's token. Only a caller who is surely the bidder is told the maximum.
    principal = permit.principal
    expires_s = min(now_s + LIFETIME_S, principal.expires_s)
    vouching = principal.vouching
    return Identity(
        user_id,
        expires_s,
        sees_maximum=True,
        issued_s=principal.issued_s,
        token_id=principal.token_id,
        api_key=principal.api_key or None,
        signer=None if vouching is None else name_of_key(vouching.key) or None,
        given_s=now_s,
    )


def _secret(content: bytes) -> Response:
    """The answer to its bearer alone: no cache may keep it."""
    return Response(content, 201, {"cache-control": "no-store"}, "application/json")
