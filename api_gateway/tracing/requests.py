"""The requests with bids that come by ASGI: those that are not plain, and batches."""

from __future__ import annotations

import re
from time import perf_counter
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api_gateway.context import Context
from api_gateway.door.rates import peer_of
from api_gateway.routes import batches
from api_gateway.tracing.bids import BID_ROUTE
from api_gateway.tracing.one_bid import enter

_BID: Final = re.compile(r"/api/v1/items/[A-Za-z0-9_-]{1,64}/bid")


class TracedRequests:
    """ASGI middleware around all else; only where bids are traced."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        route = _route_of(scope)
        context: Context | None = scope["state"]["context"] if route else None
        if context is None or context.traces is None:
            await self._app(scope, receive, send)
            return
        request = context.traces.begin(route, scope["headers"], peer_of(scope), perf_counter())
        if request is None:
            await self._app(scope, receive, send)
            return
        span = request.span
        enter(request)

        async def send_and_note(message: Message) -> None:
            if message["type"] == "http.response.start":
                span.note({"http.response.status_code": message["status"]})
            await send(message)

        try:
            await self._app(scope, receive, send_and_note)
        except BaseException as error:
            span.end(error=type(error).__name__)
            raise
        span.end()


def _route_of(scope: Scope) -> str:
    """The route of a request with bids; empty where it is none."""
    if scope["type"] != "http" or scope["method"] != "POST":
        return ""
    path: str = scope["path"]
    if path == batches.PATH:
        return path
    return BID_ROUTE if _BID.fullmatch(path) is not None else ""
