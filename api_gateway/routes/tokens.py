"""``/api/v1/token``: short tokens for API keys."""

from __future__ import annotations

import msgspec
from fastapi import APIRouter, Request, Response

from api_gateway.context import context_of
from api_gateway.contract.documented import json_content
from api_gateway.contract.schemas import TokenAnswer
from api_gateway.door.strangers import TOKEN_PATH
from shared.http.problems import problem

router = APIRouter(tags=["operations"])


@router.post(
    TOKEN_PATH,
    status_code=201,
    summary="A token for an API key",
    responses={
        201: {"description": "The token", "content": json_content(TokenAnswer)},
        **{status: {} for status in (401, 503)},
    },
)
async def exchange_api_key(request: Request) -> Response:
    """Send the key as `Authorization: ApiKey <key>`, without a body. The token is good for ten minutes, and no longer
    than the key; it has the user and the roles of the key.
    """
    context = context_of(request)
    if context.api_keys is None:
        detail = "API keys need AUTH_MODE=jwt, API_KEY_SECRET and a key to sign with (AUTH_SIGNING_KEY_FILE)"
        return problem(503, "API_KEYS_OFF", detail)
    given = await context.api_keys.exchange(request.headers.raw)
    # The user of the key is charged as one caller, whatever addresses it calls from.
    request.state.account.of(given.user_id)
    answer = TokenAnswer(access_token=given.token, token_type="Bearer", expires_in=given.expires_in_s)
    return Response(msgspec.json.encode(answer), 201, {"cache-control": "no-store"}, "application/json")
