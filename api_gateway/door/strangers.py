"""With ``AUTH_MODE=jwt``, a request of somebody unknown is refused before its body is read."""

from __future__ import annotations

from typing import Final

from starlette.types import ASGIApp, Receive, Scope, Send

from api_gateway.contract.problems import problem_of
from api_gateway.door.limits import refuse_with
from api_gateway.identity.access import Access
from api_gateway.routes.sign_in import SIGN_IN_PATH
from shared.domain.errors import BiddingError

READING: Final = ("GET", "HEAD", "OPTIONS")
TOKEN_PATH: Final = "/api/v1/token"
"""Where an API key is what proves who calls. It has no body."""
OPEN_PATHS: Final = (TOKEN_PATH, SIGN_IN_PATH)
"""The calls that are no reading and open to everybody: who makes them has no token yet. Their bodies are short."""


class RefuseStrangers:
    """ASGI middleware, for ``AUTH_MODE=jwt``. What is open to everybody has one of the methods in ``READING``,
    but for ``OPEN_PATHS``.

    That the caller may do what it asks for is found out behind this, by the route (:func:`access.check_access`).
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] not in READING and scope["path"] not in OPEN_PATHS:
            access: Access = scope["state"]["context"].access
            try:
                access.caller(scope["headers"])
            except BiddingError as error:
                await refuse_with(*problem_of(error), receive, send)
                return
        await self._app(scope, receive, send)
