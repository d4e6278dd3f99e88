"""Errors as ``application/problem+json`` (RFC 9457), with an ``error`` text for clients of the older API."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

MEDIA_TYPE: Final = "application/problem+json"
INTERNAL_ERROR: Final = "INTERNAL_ERROR"
INTERNAL_ERROR_DETAIL: Final = "something went wrong here; whether anything was changed is not known"

TITLES: Final = {
    400: "Bad request",
    401: "Not authenticated",
    403: "Not allowed",
    404: "Not found",
    405: "Method not allowed",
    408: "Request too slow",
    409: "Conflict",
    410: "Gone",
    413: "Request too large",
    415: "Unsupported media type",
    422: "Invalid request",
    429: "Too many requests",
    431: "Request head too large",
    500: "Internal error",
    501: "Not offered here",
    503: "Temporarily unavailable",
    507: "No room left",
}


def problem_body(status: int, code: str, detail: str, **members: Any) -> bytes:
    """The body of an error answer. ``code`` is a stable name, ``detail`` says what to do; ``members`` are added as they
    are."""
    return msgspec.json.encode(
        {
            "type": f"urn:bidding:problem:{code.lower().replace('_', '-')}",
            "title": TITLES.get(status, "Error"),
            "status": status,
            "code": code,
            "detail": detail,
            "error": detail,
            **members,
        }
    )


def problem(
    status: int, code: str, detail: str, *, headers: Mapping[str, str] | None = None, **members: Any
) -> Response:
    """The whole answer, for ordinary routes."""
    return Response(problem_body(status, code, detail, **members), status, headers, MEDIA_TYPE)


def without_redirects(app: Starlette) -> Starlette:
    """The same application; a path with a slash too many is 404. A redirect of its own would name the host that a
    request says."""
    app.router.redirect_slashes = False
    return app


async def http_error(_: Request, error: Exception) -> Response:
    """The answer to what Starlette itself refuses: a path that is not there, a method that it does not have."""
    assert isinstance(error, HTTPException)
    code = {404: "NOT_FOUND", 405: "METHOD_NOT_ALLOWED"}.get(error.status_code, "ERROR")
    return problem(error.status_code, code, error.detail, headers=error.headers)


async def internal_error(_: Request, error: Exception) -> Response:
    """The answer of a service that only reads, where it has a defect."""
    return problem(500, INTERNAL_ERROR, "the service failed; try again")
