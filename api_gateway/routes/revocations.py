"""``/api/v1/revocations``: tokens that are no longer good."""

from __future__ import annotations

import logging
from typing import Final

import msgspec
from fastapi import APIRouter, Request, Response
from msgspec import UNSET

from api_gateway.context import context_of
from api_gateway.contract.documented import json_content, request_body
from api_gateway.contract.schemas import USER_ID_RULE, RevocationAnswer, RevocationBody, decode_body
from api_gateway.identity.access import permit_of
from shared import names
from shared.domain.errors import InvalidInput
from shared.http.problems import problem
from shared.timefmt import to_rfc3339

logger = logging.getLogger(__name__)
router = APIRouter(prefix="/api/v1", tags=["operations"])

_decoder: Final = msgspec.json.Decoder(RevocationBody)


@router.post(
    "/revocations",
    status_code=201,
    summary="Revoke tokens",
    responses={
        201: {"description": "They are refused from now on", "content": json_content(RevocationAnswer)},
        **{status: {} for status in (409, 422, 503)},
    },
    openapi_extra={"requestBody": request_body(RevocationBody, {"user_id": "ann"})},
)
async def revoke_tokens(request: Request) -> Response:
    """All tokens of a user that were issued until now, or the one whose `jti` it is, are refused: here at once, at
    every other gateway within two seconds or so. WebSockets of bids that were opened with them are closed.

    It holds for 30 days. To ask for the same again revokes the tokens that were issued meanwhile, too. Who did it, and
    why, is recorded: `GET /ops/acts`.
    """
    context, permit = context_of(request), permit_of(request)
    if context.revoking is None or permit.principal is None:
        return problem(409, "NO_TOKENS", "AUTH_MODE is open here: there are no tokens that could be revoked")
    body = decode_body(_decoder, await request.body(), '{"user_id": "ann"}')
    if "\0" in body.reason:
        raise InvalidInput("reason: must not hold NUL")
    why = {"reason": body.reason, "by": permit.principal.user_id}
    if (body.user_id is UNSET) == (body.token_id is UNSET):
        raise InvalidInput("send either user_id or token_id")
    if body.user_id is not UNSET:
        if not names.is_user_id(body.user_id):
            raise InvalidInput(USER_ID_RULE)
        told, done = {"user_id": body.user_id}, await context.revoking.revoke_user(body.user_id, **why)
    else:
        assert body.token_id is not UNSET
        if not names.is_token_id(body.token_id):
            raise InvalidInput("token_id, the jti of a token: 1 to 128 characters of A-Z a-z 0-9 _ . : @ -")
        told, done = {"token_id": body.token_id}, await context.revoking.revoke_token(body.token_id, **why)
    logger.warning("tokens revoked by %s: %s", permit.principal.user_id, told)
    if not done.is_recorded:
        logger.error(
            "the record of acts lacks a revocation, which stands in this log alone: %s, by %s",
            told,
            permit.principal.user_id,
        )
    at_s, until_s = done.revocation
    answer = RevocationAnswer(to_rfc3339(at_s * 1_000_000), to_rfc3339(until_s * 1_000_000), done.is_recorded, **told)
    return Response(msgspec.json.encode(answer), 201, media_type="application/json")
