"""OpenAPI: the application's own, with the hot path's operation, the shared schemas and every error added.

What the framework and msgspec write is also put into the form that generators of clients understand: an enum has its
type, a constant is `const`, and no text carries the marks and line breaks of the source.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from typing import Any, Final

import msgspec
from fastapi import FastAPI, Request, Response
from starlette.routing import Route

from api_gateway.contract.documented import (
    BidAcceptedAnswer,
    BidRefusedAnswer,
    ProblemAnswer,
    component_schemas,
    json_content,
    request_body,
)
from api_gateway.contract.schemas import BidRequest
from api_gateway.hot_path import BID_BYTES_MAX
from api_gateway.identity.access import NOBODY, TABLE
from shared import names
from shared.http.pieces import InPieces
from shared.http.problems import MEDIA_TYPE

DESCRIPTION: Final = """\
Real-time auctions: bids are decided atomically, numbered without a gap, and never lost.

- **Money** is a JSON number with at most the decimals of the item's currency. It is read from its text, exactly, and
never rounded. Up to 15 digits pass through the binary floating point of most clients unharmed.
- **Repeat safely**: give each bid a `bid_id` of your own, or the header `Idempotency-Key`. After a time-out or a 503
repeat it, or ask `/api/v1/bids/by-key`.
- **Errors** are problem documents (RFC 9457) with a stable `code`. A bid that the rules refuse is no error: it is a 200
with `success` false.
- `HEAD` is answered wherever `GET` is.
"""
OPEN: Final = """\
- There is **no authentication**: whoever reaches this API may bid as anybody and operate any item. Put it behind
a proxy that knows who the caller is, or start it with `AUTH_MODE=jwt`.
"""
GUARDED: Final = """\
- **Who calls** is told by a token, `Authorization: Bearer <JWT>`. Bids are in the caller's name; sellers act on
their own items. Reading needs no token.
"""

TAGS: Final = [
    {
        "name": "items",
        "description": "What is on sale, and the bids on it. Operators pause, resume, extend, cancel and void.",
    },
    {
        "name": "bidders",
        "description": "Who may bid. Sellers rule on bidders of their items, operators on all.",
    },
    {"name": "bids", "description": "Place a bid, and learn what became of it."},
    {"name": "operations", "description": "For those who run the platform: is it well?"},
    {
        "name": "own",
        "description": "What belongs to who calls: the watch list, the items on which they have bid or that they sell.",
    },
    {"name": "signing in", "description": "Who calls, and links that sign in on the pages."},
    {
        "name": "live feed",
        "description": "Tickets and tokens for the broadcaster, whose own description is docs/asyncapi.yaml.",
    },
]

# Name and text of each error. A response refers to these where its route says nothing more about the status.
_PROBLEMS: Final[dict[str, tuple[str, str]]] = {
    "400": ("BadRequest", "This is not an HTTP/1.1 request"),
    "401": ("Unauthenticated", "There is no token, or one that is not believed; nothing was changed"),
    "403": ("Forbidden", "Not given to this caller; nothing was changed"),
    "404": ("NotFound", "There is no such item, bid or key"),
    "408": ("TooSlow", "The request did not arrive in time; the connection is closed"),
    "409": ("Conflict", "The id is taken, or the item's state does not allow it; nothing was changed"),
    "410": ("Gone", "The item is over, and its bids are in an export of the operator's alone; the answer names it"),
    "413": ("TooLarge", "The body is too large; the connection is closed"),
    "415": ("WrongType", "The body is said to be something else than what is taken here; the connection may be closed"),
    "422": ("Invalid", "Malformed, or the key was used with other content; nothing was changed"),
    "429": ("TooManyRequests", "Too much is asked for by this caller or from this address; nothing was changed"),
    "431": ("HeadTooLarge", "The request line and headers are too large; the connection is closed"),
    "500": ("InternalError", "A fault of this service; whether anything was changed is not known"),
    "501": ("NotOffered", "This platform keeps no images"),
    "503": (
        "Unavailable",
        "Not now. A bid changed nothing, unless the code is OUTCOME_UNKNOWN: then repeat it with the same key. "
        "After another call look at the item",
    ),
    "507": ("NoRoom", "There is no room for more images, or watched items"),
}
_ANY: Final = ("400", "408", "429", "431", "500")
_RETRY_AFTER: Final = {
    "description": "Seconds after which a repetition may succeed; absent where waiting does not help.",
    "schema": {"type": "integer", "minimum": 1},
}


def install_openapi(app: FastAPI, *, is_open: bool = True) -> None:
    """Make ``app.openapi()`` complete. ``is_open``: whether everybody may do everything, without a token."""
    generated = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            app.openapi_schema = _completed(generated(), is_open=is_open)
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]
    rendered = b""

    async def tell(_: Request) -> Response:
        # Rendered once: it takes as long as many bids do. Not at the start, since most gateways are never asked.
        nonlocal rendered
        rendered = rendered or msgspec.json.encode(app.openapi())
        return InPieces(rendered, media_type="application/json")

    assert app.openapi_url is not None
    # In front of the framework's own route, which renders the document for each request.
    app.router.routes.insert(0, Route(app.openapi_url, tell))


def _completed(document: dict[str, Any], *, is_open: bool) -> dict[str, Any]:
    document["security"] = []
    document["paths"]["/api/v1/items/{item_id}/bid"] = {"post": _bid_operation()}
    for path in document["paths"].values():
        for operation in path.values():
            if not is_open and NOBODY not in TABLE[operation["operationId"]]:
                operation["security"] = [{"bearer": []}]
                operation["responses"] |= {"401": {}, "403": {}}
            if is_open:
                operation["responses"].pop("401", None)
            _add_problems(operation)
    schemas = component_schemas()
    for schema in schemas.values():
        for member in schema.get("properties", {}).values():
            # A generator for TypeScript makes a member with a default required. The descriptions tell the default.
            member.pop("default", None)
    # At least one of both, and not null. A choice of schemas would say it too, but generators make two classes of that.
    schemas["BidRequest"]["if"] = _must_be_number("amount")
    schemas["BidRequest"]["else"] = _must_be_number("max_amount")
    document["components"] = {"schemas": schemas, "responses": _problem_responses()}
    if is_open:
        del document["components"]["responses"][_PROBLEMS["401"][0]]
        for name in ("BidRequest", "BatchedBid", "FeedTokenBody"):
            schemas[name].setdefault("required", []).append("user_id")
    else:
        document["components"]["securitySchemes"] = {
            "bearer": {"type": "http", "scheme": "bearer", "bearerFormat": "JWT", "description": "Who calls."}
        }
    for node in _objects(document):
        _clarify(node)
    return document


def _must_be_number(member: str) -> dict[str, Any]:
    return {"required": [member], "properties": {member: {"type": "number"}}}


def _add_problems(operation: dict[str, Any]) -> None:
    responses = operation["responses"]
    for status in (*_ANY, "413", "415") if "requestBody" in operation else _ANY:
        responses.setdefault(status, {})
    for status, response in responses.items():
        if status in _PROBLEMS and "content" not in response:
            responses[status] = {"$ref": f"#/components/responses/{_PROBLEMS[status][0]}"}
    operation["responses"] = dict(sorted(responses.items()))


def _problem_responses() -> dict[str, Any]:
    responses: dict[str, Any] = {
        name: {"description": text, "content": json_content(ProblemAnswer, media_type=MEDIA_TYPE)}
        for name, text in _PROBLEMS.values()
    }
    responses["Unavailable"]["headers"] = {"Retry-After": _RETRY_AFTER}
    responses["TooManyRequests"]["headers"] = {
        "Retry-After": _RETRY_AFTER,
        "RateLimit": {"description": "Which limit it is, and when there is room again.", "schema": {"type": "string"}},
        "RateLimit-Policy": {"description": "What that limit allows.", "schema": {"type": "string"}},
    }
    return responses


def _objects(node: Any) -> Iterator[dict[str, Any]]:
    """Every object of the document, the inner ones first."""
    for each in node.values() if isinstance(node, dict) else node if isinstance(node, list) else ():
        yield from _objects(each)
    if isinstance(node, dict):
        yield node


def _clarify(node: dict[str, Any]) -> None:
    match node.get("enum"):
        case [bool() as only]:
            del node["enum"]
            node.update(type="boolean", const=only)
        case [str(), *_]:
            node["type"] = "string"
    if isinstance(node.get("description"), str):
        node["description"] = _plain(node["description"])


def _plain(docstring: str) -> str:
    """Paragraphs and list items of one line each, in Markdown."""
    text = inspect.cleandoc(docstring).replace("``", "`")
    return re.sub(r"(?<=\S)\n(?=[^\n-])", " ", text)


def _bid_operation() -> dict[str, Any]:
    accepted: dict[str, Any] = {
        "description": "Accepted: the bid counts",
        "content": json_content(BidAcceptedAnswer),
        "links": {
            "Void": {
                "operationId": "void_bid",
                "parameters": {"item_id": "$request.path.item_id", "bid_id": "$response.body#/bid_id"},
            },
        },
    }
    return {
        "tags": ["bids"],
        "summary": "Place a bid",
        "description": (
            "Decided atomically. Send a `bid_id` of your own or the header `Idempotency-Key`: repeating the request "
            "under the same key gives the same answer, word for word, and never a second bid. With both, they must be "
            "equal. Of refusals only the latest are kept, for half an hour; an older one that is repeated is decided "
            f"anew. Members that are not listed are refused. The body may have {BID_BYTES_MAX} bytes."
        ),
        "operationId": "place_bid",
        "parameters": [
            {
                "name": "item_id",
                "in": "path",
                "required": True,
                "description": "The item.",
                "schema": {"type": "string", "pattern": names.ITEM_ID_PATTERN, "examples": ["demo-1"]},
            },
            {
                "name": "Idempotency-Key",
                "in": "header",
                "required": False,
                "description": "Your own name of this bid, new for each new bid; visible ASCII characters.",
                "schema": {"type": "string", "pattern": names.IDEMPOTENCY_KEY_PATTERN},
            },
        ],
        "requestBody": request_body(BidRequest, {"user_id": "ann", "amount": 12.5}),
        "responses": {
            "200": {"description": "Refused by the rules: nothing changed", "content": json_content(BidRefusedAnswer)},
            "201": accepted,
            **{status: {} for status in ("404", "422", "503")},
        },
    }
