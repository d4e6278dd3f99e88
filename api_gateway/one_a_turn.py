"""Requests that the framework answers begin one after another, each in a turn of the event loop of its own.

The same loop decides bids, and answering by the framework takes about a millisecond: a hundred requests that came
together would hold every bid up for a tenth of a second.
"""

from __future__ import annotations

import asyncio
from asyncio import Future
from collections import deque

from starlette.types import ASGIApp, Receive, Scope, Send


class OneATurn:
    """ASGI middleware. As many requests wait as there are connections, each of which has one at a time."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        self._waiting: deque[Future[None]] = deque()
        self._is_taken = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._turn()
        await self._app(scope, receive, send)

    async def _turn(self) -> None:
        loop = asyncio.get_running_loop()
        if not self._is_taken:
            self._is_taken = True
            loop.call_soon(self._next)
            return
        mine = loop.create_future()
        self._waiting.append(mine)
        await mine

    def _next(self) -> None:
        """The turn is over: the next one is somebody else's, or anybody's."""
        while self._waiting:
            next_one = self._waiting.popleft()
            if not next_one.done():
                next_one.set_result(None)
                asyncio.get_running_loop().call_soon(self._next)
                return
        self._is_taken = False
