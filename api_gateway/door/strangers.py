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
"""The path where an API key proves who calls. Its requests have no body."""
OPEN_PATHS: Final = (TOKEN_PATH, SIGN_IN_PATH)
"""The calls that do more than read and are open to everybody: the caller has no token yet. Their bodies are short."""


class RefuseStrangers:
    """ASGI middleware, for ``AUTH_MODE=jwt``. Calls that are open to everybody have one of the methods in ``READING``,
    or a path in ``OPEN_PATHS``.

    The route checks afterwards whether the caller may do what it asks for (:func:`access.check_access`).
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
