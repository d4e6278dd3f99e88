"""Signing in on the pages: who a token names, and a code, good once, that stands for a token in a link."""

from __future__ import annotations

import asyncio
from typing import Final

import msgspec
from fastapi import APIRouter, Request, Response
from redis.exceptions import RedisError

from api_gateway.context import context_of
from api_gateway.contract.documented import json_content, request_body
from api_gateway.contract.schemas import MeAnswer, SignInAnswer, SignInBody, SignInCodeAnswer, decode_body
from api_gateway.identity.access import permit_of
from shared.clients.redis import told_of
from shared.domain.errors import Overloaded, Unavailable
from shared.http.problems import problem
from shared.identity.once import is_secret, put_once, take_once
from shared.identity.principals import bearer_token
from shared.identity.tokens import Role
from shared.timefmt import to_rfc3339

SIGN_IN_PATH: Final = "/api/v1/sign-in"
CODE_S: Final = 120
"""How long a code is good, unless it is used before."""

router = APIRouter(prefix="/api/v1", tags=["signing in"])

_KIND: Final = "sign-in"
_decoder: Final = msgspec.json.Decoder(SignInBody)


@router.get(
    "/me",
    summary="Who am I?",
    responses={200: {"description": "Whom the token names", "content": json_content(MeAnswer)}},
)
async def get_me(request: Request) -> Response:
    """Whom the token of this request names, and until when. With `AUTH_MODE=open` nobody is known, and everybody may do
    everything."""
    principal = permit_of(request).principal
    if principal is None:
        answer = MeAnswer(None, [role.value for role in Role], None)
    else:
        roles = sorted(role.value for role in principal.roles)
        answer = MeAnswer(principal.user_id, roles, to_rfc3339(principal.expires_s * 1_000_000))
    return _secret(answer, 200)


@router.post(
    "/sign-in-code",
    status_code=201,
    summary="A link that signs in",
    responses={
        201: {"description": "The code", "content": json_content(SignInCodeAnswer)},
        **{status: {} for status in (403, 503)},
    },
)
async def make_sign_in_code(request: Request) -> Response:
    """A code that stands for the token of this request: once, and for two minutes.

    The address `/sign-in#<code>` of the pages exchanges it. So a site that knows who somebody is hands them over to the
    pages, and no token stands in an address.
    """
    context, permit = context_of(request), permit_of(request)
    if permit.principal is None:
        return problem(403, "IDENTITY_REQUIRED", "nobody signs in here: AUTH_MODE is open")
    token = bearer_token(request.headers.raw)
    assert token is not None, "it names the principal"
    if not context.sign_in_ration.spend(permit.principal.user_id, asyncio.get_running_loop().time()):
        raise Overloaded("too many links were asked for; try again in some seconds")
    try:
        code = await put_once(context.redis, _KIND, token, ttl_ms=CODE_S * 1000)
    except (RedisError, OSError, TimeoutError) as error:
        raise Unavailable(f"Redis cannot be asked: {told_of(error)}") from error
    return _secret(SignInCodeAnswer(code, CODE_S), 201)


@router.post(
    "/sign-in",
    status_code=201,
    summary="Exchange a code for its token",
    responses={
        201: {"description": "The token", "content": json_content(SignInAnswer)},
        **{status: {} for status in (404, 422, 503)},
    },
    openapi_extra={"requestBody": request_body(SignInBody, {"code": "q83vEjRWeJq83vEjRWeJqw"})},
)
async def sign_in(request: Request) -> Response:
    """The token that was put under a code. It is told once."""
    context = context_of(request)
    code = decode_body(_decoder, await request.body(), '{"code": "…"}').code
    try:
        [token] = await take_once(context.redis, _KIND, [code]) if is_secret(code) else [None]
    except (RedisError, OSError, TimeoutError) as error:
        raise Unavailable(f"Redis cannot be asked: {told_of(error)}") from error
    if isinstance(token, Exception):
        raise Unavailable(f"Redis cannot be asked: {told_of(token)}") from token
    if token is None:
        detail = "the link is unknown, was used, or is older than two minutes; ask for a new one"
        return problem(404, "CODE_NOT_FOUND", detail)
    if not context.access.may_believe(token):
        return problem(404, "CODE_NOT_FOUND", "the sign-in behind the link has ended or was revoked; sign in anew")
    return _secret(SignInAnswer(token.decode("ascii")), 201)


def _secret(answer: msgspec.Struct, status: int) -> Response:
    """The answer to its bearer alone: no cache may keep it."""
    return Response(msgspec.json.encode(answer), status, {"cache-control": "no-store"}, "application/json")
