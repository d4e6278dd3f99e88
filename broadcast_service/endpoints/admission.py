"""Checks a request to connect: the same for WebSockets and event streams."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from starlette.requests import HTTPConnection
from starlette.responses import Response

from broadcast_service.core.frames import Version
from broadcast_service.core.origins import is_allowed
from broadcast_service.endpoints.operations import FULL, ITEM_HINT, SinceInvalid, parse_since
from broadcast_service.service import Service
from shared import feed_tokens, names
from shared.feed_tokens import Identity, TokenInvalid
from shared.http.addresses import counted_as
from shared.http.problems import problem

_RETRY: Final = {"retry-after": "5"}
_UNKNOWN_ADDRESS: Final = "unknown"


@dataclass(frozen=True, slots=True)
class ConnectRequest:
    """What a client asks for in its URL.

    Attributes:
        address: the key under which the client's address is counted.
        item_id: the only item of the connection; None for a connection to many items.
        since: the version that the viewer has already.
        full: every event instead of a limited number of frames per second.
        identity: the bidder that the token names.
    """

    address: str
    item_id: str | None
    since: Version | None
    full: bool
    identity: Identity | None


def connect_request_of(
    connection: HTTPConnection, item_id: str | None, service: Service, *, last_event_id: str | None = None
) -> ConnectRequest | Response:
    """The request, checked, or the problem response.

    Args:
        last_event_id: the header Last-Event-ID; used instead of ``since``.
    """
    client = connection.client
    address = counted_as(client.host) if client is not None else _UNKNOWN_ADDRESS
    # Before all other checks: they cost time too.
    if not service.addresses.attempt(address, service.clock()):
        detail = "this address asks for connections too often; wait, or follow several items on one"
        return problem(429, "TOO_MANY_ATTEMPTS_FROM_ADDRESS", detail, headers=_RETRY)
    headers, query = connection.headers, connection.query_params
    if not is_allowed(headers.get("origin"), headers.get("host"), service.origins):
        return problem(403, "ORIGIN_NOT_ALLOWED", "pages of this origin may not use the feed; see FEED_ORIGINS")
    if item_id is not None and not names.is_item_id(item_id):
        return problem(422, "ITEM_ID_INVALID", ITEM_HINT)
    since_text = last_event_id or query.get("since")
    try:
        since = parse_since(since_text) if since_text else None
    except SinceInvalid as error:
        return problem(422, "SINCE_INVALID", str(error))
    feed = query.get("feed")
    if feed not in (None, "", FULL, "conflated"):
        return problem(422, "FEED_INVALID", f"feed is {FULL} for every event; leave it out for the newest state")
    token = query.get("token")
    identity: Identity | None = None
    if token is not None and service.settings.auth_mode != "open":
        detail = 'addresses end up in logs, so no token belongs in one; say {"op":"authenticate","ticket":"..."} first'
        return problem(422, "TOKEN_IN_ADDRESS", detail)
    if token is not None:
        try:
            identity = feed_tokens.check(service.settings.feed_token_secrets, token)
        except TokenInvalid as error:
            return problem(401, "TOKEN_INVALID", str(error), headers={"www-authenticate": "Bearer"})
    return ConnectRequest(address, item_id, since, feed == FULL, identity)


def refusal(service: Service, address: str) -> Response | None:
    """The problem response, with Retry-After, if there is no room now; else None."""
    if service.is_draining:
        return problem(503, "STOPPING", "the service stops; connect again, to another one", headers=_RETRY)
    if service.is_full:
        return problem(503, "TOO_MANY_CONNECTIONS", "the feed is full; try again later", headers=_RETRY)
    if service.addresses.is_full(address):
        detail = "too many connections from this address; close some, or follow several items on one"
        return problem(429, "TOO_MANY_CONNECTIONS_FROM_ADDRESS", detail, headers=_RETRY)
    return None
