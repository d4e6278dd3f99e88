"""OpenAPI: the application's own, with the hot path's operation and the shared schemas added."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from api_gateway.problems import MEDIA_TYPE
from api_gateway.schemas import (
    BidAcceptedAnswer,
    BidRefusedAnswer,
    BidRequest,
    ProblemAnswer,
    component_schemas,
    json_content,
)
from shared import names

_PROBLEMS = {
    "404": "No such item",
    "413": "The body is too large",
    "422": "Malformed, or the key was used with other content; nothing was changed",
    "503": "Not taken (nothing was changed), or OUTCOME_UNKNOWN: repeat with the same key. Retry-After says when",
}


def install_openapi(app: FastAPI) -> None:
    """Make ``app.openapi()`` complete."""
    generated = app.openapi

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = generated()
            schema["paths"]["/api/v1/items/{item_id}/bid"] = {"post": _bid_operation()}
            schema.setdefault("components", {}).setdefault("schemas", {}).update(component_schemas())
            app.openapi_schema = schema
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]


def _bid_operation() -> dict[str, Any]:
    problem = json_content(ProblemAnswer, media_type=MEDIA_TYPE)
    return {
        "tags": ["bids"],
        "summary": "Place a bid",
        "description": (
            "Decided atomically. Send a `bid_id` of your own or the header `Idempotency-Key`: repeating the request "
            "under the same key gives the same answer, word for word, and never a second bid."
        ),
        "operationId": "place_bid",
        "parameters": [
            {
                "name": "item_id",
                "in": "path",
                "required": True,
                "schema": {"type": "string", "pattern": names.ITEM_ID_PATTERN},
            },
            {
                "name": "Idempotency-Key",
                "in": "header",
                "required": False,
                "schema": {"type": "string", "minLength": 1, "maxLength": 255},
            },
        ],
        "requestBody": {"required": True, "content": json_content(BidRequest)},
        "responses": {
            "201": {"description": "Accepted", "content": json_content(BidAcceptedAnswer)},
            "200": {"description": "Refused by the rules", "content": json_content(BidRefusedAnswer)},
            **{status: {"description": text, "content": problem} for status, text in _PROBLEMS.items()},
        },
    }
