"""``/health`` and ``/ready``: the one shape that all services answer them in."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
from starlette.responses import Response

from shared.timefmt import from_datetime, to_rfc3339


def json_answer(content: Any, status: int = 200) -> Response:
    """``content`` as msgspec encodes it."""
    return Response(msgspec.json.encode(content), status, media_type="application/json")


def health(service: str) -> Response:
    """The process answers. Says nothing of the servers behind it: restarting this process would not bring them back."""
    now = to_rfc3339(from_datetime(datetime.now(UTC)))
    return json_answer({"status": "healthy", "service": service, "time": now})


def readiness(service: str, *, works: bool, is_degraded: bool, **members: Any) -> Response:
    """200 where the service does its work, even if ``degraded``; 503 and ``unavailable`` where it does not.

    Args:
        members: further members of the answer, added as they are.
    """
    status = "unavailable" if not works else "degraded" if is_degraded else "ready"
    return json_answer({"status": status, "service": service, **members}, 200 if works else 503)
