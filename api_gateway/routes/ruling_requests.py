"""What requests about who may bid have in common: their parameters, the reason and who says so, and the answers."""

from __future__ import annotations

from typing import Annotated, Any, Final

import msgspec
from fastapi import Path, Query, Request, Response
from pydantic.json_schema import SkipJsonSchema

from api_gateway.contract.documented import json_content, request_body
from api_gateway.contract.ruling_schemas import RulingBody
from api_gateway.contract.schemas import USER_ID_RULE, decode_body
from api_gateway.identity.access import permit_of
from shared import names
from shared.domain.errors import InvalidInput
from shared.identity.errors import Forbidden

PRIVATE: Final = {"cache-control": "no-store"}
"""Headers of what is told to its caller, and not to whoever signs in later at the same browser."""

_ruling_decoder: Final = msgspec.json.Decoder(RulingBody)
_REASON_MAX: Final = 500
_CURSOR_MAX: Final = 2**64

_USER_ID: Final = {"pattern": names.USER_ID_PATTERN, "examples": ["ann"]}
UserIdPath = Annotated[str, Path(description="The bidder.", json_schema_extra=_USER_ID)]
SellerIdPath = Annotated[str, Path(description="The seller.", json_schema_extra=_USER_ID | {"examples": ["sam"]})]
CurrencyQuery = Annotated[
    str, Query(description="ISO 4217.", json_schema_extra={"pattern": "^[A-Z]{3}$", "examples": ["USD"]})
]
Cursor = Annotated[
    str | SkipJsonSchema[None],
    Query(max_length=20, description="The `next_cursor` of the page before, unchanged; without it the first page."),
]
Reason = Annotated[str, Query(max_length=_REASON_MAX, description="Why. Only the audit has it.")]
By = Annotated[
    str | SkipJsonSchema[None],
    Query(description="Who does it; where a token says who calls, that is you.", json_schema_extra=_USER_ID),
]


def docs(answer: type[msgspec.Struct], *problems: int, body: dict[str, Any] | None = None) -> dict[str, Any]:
    """What OpenAPI says of a route; ``body``: the example of one that may be left out."""
    told: dict[str, Any] = {
        "responses": {
            200: {"description": "As it is now", "content": json_content(answer)},
            **{status: {} for status in problems},
        }
    }
    if body is not None:
        told["openapi_extra"] = {"requestBody": request_body(RulingBody, body) | {"required": False}}
    return told


def as_json(content: msgspec.Struct) -> Response:
    """For who asked: no cache may keep it."""
    return Response(msgspec.json.encode(content), headers=PRIVATE, media_type="application/json")


def check_user(user_id: str) -> None:
    """Raises InvalidInput where it is no user id."""
    if not names.is_user_id(user_id):
        raise InvalidInput(USER_ID_RULE)


def own_seller(request: Request, seller_id: str) -> str:
    """The seller in the address.

    Raises:
        InvalidInput: it is no user id.
        Forbidden: it is somebody else.
    """
    if not names.is_user_id(seller_id):
        raise InvalidInput(f"seller_id, as {USER_ID_RULE}")
    own = permit_of(request).own_id
    if own is not None and own != seller_id:
        raise Forbidden(f"seller_id must be {own!r}, as whom you are signed in")
    return seller_id


async def sent(request: Request) -> RulingBody:
    """The body of a request, which may be empty."""
    return decode_body(_ruling_decoder, await request.body() or b"{}", '{"reason": "…"}')


def said_in_address(reason: str, by: str | None) -> RulingBody:
    """The same, out of the query of a request without a body."""
    return RulingBody(reason, msgspec.UNSET if by is None else by)


def reason_of(request: Request, said: RulingBody) -> dict[str, str]:
    """Why, and who says so.

    Raises:
        InvalidInput: one of them is malformed.
        Forbidden: somebody else is named.
    """
    if "\0" in said.reason:
        raise InvalidInput("reason: must not hold NUL")
    by = permit_of(request).actor(None if said.by is msgspec.UNSET else said.by, "operator")
    if not names.is_user_id(by):
        raise InvalidInput(f"by, as {USER_ID_RULE}")
    return {"reason": said.reason, "by": by}


def cursor_in(text: str | None) -> int:
    """Where a page begins. Raises InvalidInput where no page gave this out."""
    if not text:
        return 0
    if not (text.isascii() and text.isdigit() and 0 < int(text) < _CURSOR_MAX):
        raise InvalidInput("cursor: send the next_cursor of the page before, unchanged")
    return int(text)


def cursor_after(cursor: int) -> str | None:
    return str(cursor) if cursor else None
