"""Requests that the framework answers begin one after another, each in a turn of the event loop of its own.

The same loop decides bids, and answering by the framework takes about a millisecond: a hundred requests that came
together would hold every bid up for a tenth of a second.
"""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

from shared.pacing.turns import OneByOne


class OneATurn:
    """ASGI middleware. As many requests wait as there are connections, each of which has one at a time."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._turns = OneByOne()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._turns.turn()
        await self._app(scope, receive, send)
