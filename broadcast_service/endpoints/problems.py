"""Errors as ``application/problem+json`` (RFC 9457), with an ``error`` text beside it."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

import msgspec
from starlette.responses import Response


def problem(status: int, code: str, detail: str, *, headers: Mapping[str, str] | None = None) -> Response:
    """An error answer. ``code`` is a stable name, ``detail`` says what to do."""
    body = {
        "type": f"urn:bidding:problem:{code.lower().replace('_', '-')}",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "code": code,
        "detail": detail,
        "error": detail,
    }
    return Response(msgspec.json.encode(body), status, headers, "application/problem+json")
