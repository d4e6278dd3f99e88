"""Every error of the application becomes a problem document.

Domain errors know no HTTP; the one table below gives them their status.
"""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import quote

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.routing import Match

from api_gateway.door.bodies import TooManyBytes
from api_gateway.door.foreign_pages import NotJson, OriginNotAllowed
from api_gateway.door.rates import RateLimited
from api_gateway.images import errors as image_errors
from api_gateway.own import errors as own_errors
from shared.archive_reads.retired import members_of
from shared.domain import errors
from shared.http.problems import INTERNAL_ERROR, INTERNAL_ERROR_DETAIL, MEDIA_TYPE, TITLES, problem, problem_body
from shared.identity.errors import Forbidden, Unauthenticated

# The first class that matches decides, so subclasses stand above their bases.
_STATUS: Final[tuple[tuple[type[errors.BiddingError], int], ...]] = (
    (errors.InvalidInput, 422),
    (Unauthenticated, 401),
    (Forbidden, 403),
    (OriginNotAllowed, 403),
    (own_errors.IdentityRequired, 403),
    (errors.ItemNotFound, 404),
    (errors.BidNotFound, 404),
    (errors.HistoryRetired, 410),
    (errors.ItemExists, 409),
    (errors.StateConflict, 409),
    (errors.TooManyRulings, 409),
    (errors.BidStruck, 409),
    (own_errors.WatchListFull, 409),
    (errors.LeadLacksCredit, 409),
    (NotJson, 415),
    (RateLimited, 429),
    (TooManyBytes, 429),
    (image_errors.ImageNotFound, 404),
    (image_errors.UploadTooSlow, 408),
    (image_errors.ImageTooLarge, 413),
    (image_errors.ImageTypeWrong, 415),
    (image_errors.ImageQuota, 429),
    (image_errors.ImagesOff, 501),
    (image_errors.ImagesFull, 507),
    (own_errors.WatchListsFull, 507),
    (errors.Unavailable, 503),
    (errors.OutcomeUnknown, 503),
)


def status_of(error: errors.BiddingError) -> int:
    """The HTTP status of a domain error; 500 for one that the table does not know."""
    return next((status for kind, status in _STATUS if isinstance(error, kind)), 500)


def problem_of(error: errors.BiddingError) -> tuple[int, bytes, dict[str, str]]:
    """Status, body and extra headers (Retry-After, RateLimit, WWW-Authenticate) of a domain error."""
    status = status_of(error)
    headers: dict[str, str] = {}
    if isinstance(error, RateLimited):
        headers |= error.headers
    elif isinstance(error, (errors.Unavailable, errors.OutcomeUnknown, TooManyBytes, image_errors.ImageQuota)):
        headers["retry-after"] = str(error.retry_after_s)
    elif isinstance(error, Unauthenticated):
        # RFC 6750, section 3: without a token nothing was wrong with it.
        headers["www-authenticate"] = 'Bearer error="invalid_token"' if error.had_token else "Bearer"
    elif isinstance(error, Forbidden):
        headers["www-authenticate"] = 'Bearer error="insufficient_scope"'
    field = error.field if isinstance(error, errors.InvalidInput) else None
    members: dict[str, Any] = {} if field is None else {"field": field}
    if isinstance(error, errors.HistoryRetired):
        members = members_of(error)
    return status, problem_body(status, error.code, str(error), **members), headers


def _allowed(request: Request) -> list[str]:
    """The methods that the path allows (RFC 9110, section 15.5.6). The framework names only those of its first
    route."""

    def fits(method: str) -> bool:
        scope = {**request.scope, "method": method}
        return any(route.matches(scope)[0] is Match.FULL for route in request.app.router.routes)

    found = [method for method in ("GET", "POST", "PUT", "PATCH", "DELETE") if fits(method)]
    # HEAD becomes GET before it reaches the application.
    return [each for method in found for each in ((method, "HEAD") if method == "GET" else (method,))]


def _without_slash(request: Request) -> str | None:
    """Where the request would be answered without the slash at its end; None where that is nowhere.

    A path alone, and no address: behind a proxy the scheme is another one here, so that a token would go over the net
    in the clear; and a host is whatever the request says it is.
    """
    path = request.scope["path"]
    if not path.endswith("/") or path == "/" or path.startswith("//"):
        return None
    scope = {**request.scope, "path": path[:-1]}
    if all(route.matches(scope)[0] is Match.NONE for route in request.app.router.routes):
        return None
    query = request.scope["query_string"].decode("latin-1")
    return quote(path[:-1]) + (f"?{query}" if query else "")


def install(app: FastAPI) -> None:
    """Every error of the application becomes a problem document."""

    async def bidding_error(_: Request, error: Exception) -> Response:
        assert isinstance(error, errors.BiddingError)
        status, body, headers = problem_of(error)
        return Response(body, status, headers, MEDIA_TYPE)

    async def http_error(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        code = TITLES.get(error.status_code, "Error").upper().replace(" ", "_")
        headers = dict(error.headers or {})
        if error.status_code == 405:
            headers = {"allow": ", ".join(_allowed(request))}
        if error.status_code == 404 and (elsewhere := _without_slash(request)) is not None:
            return Response(None, 307, {"location": elsewhere})
        return problem(error.status_code, code, str(error.detail), headers=headers)

    async def validation_error(_: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"] if part not in ("body", "query", "path"))
        detail = f"{where}: {first['msg']}" if where else str(first["msg"])
        return problem(422, "INVALID", detail, field=where)

    async def internal_error(_: Request, error: Exception) -> Response:
        # The framework raises it again after the answer, so that the server logs it.
        return problem(500, INTERNAL_ERROR, INTERNAL_ERROR_DETAIL)

    app.add_exception_handler(Exception, internal_error)
    app.add_exception_handler(errors.BiddingError, bidding_error)
    app.add_exception_handler(HTTPException, http_error)
    app.add_exception_handler(RequestValidationError, validation_error)
