"""Bounds on request bodies for everything behind the hot path."""

from __future__ import annotations

import asyncio

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api_gateway.problems import MEDIA_TYPE, problem


class _TooLarge(Exception):
    """More bytes came than are allowed."""


class BodyLimit:
    """ASGI middleware: 413 for a body over ``bytes_max``, 408 for one that does not arrive within ``timeout_s``.

    It counts what arrives, so a chunked body without a Content-Length is bounded as well.
    """

    def __init__(self, app: ASGIApp, *, bytes_max: int, timeout_s: float) -> None:
        self._app = app
        self._bytes_max = bytes_max
        self._timeout_s = timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD", "OPTIONS"):
            await self._app(scope, receive, send)
            return
        declared = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        received = 0
        complete = started = False

        async def bounded_receive() -> Message:
            nonlocal received, complete
            if complete:
                return await receive()
            async with asyncio.timeout(self._timeout_s):
                message = await receive()
            received += len(message.get("body", b""))
            complete = not message.get("more_body", False)
            if received > self._bytes_max:
                raise _TooLarge
            return message

        async def watched_send(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            if int(declared) > self._bytes_max:
                raise _TooLarge
            await self._app(scope, bounded_receive, watched_send)
        except (_TooLarge, TimeoutError) as error:
            if started or (complete and not isinstance(error, _TooLarge)):
                raise
            await self._refuse(error, send)

    async def _refuse(self, error: Exception, send: Send) -> None:
        if isinstance(error, _TooLarge):
            status, code, detail = 413, "BODY_TOO_LARGE", f"the body may have {self._bytes_max} bytes"
        else:
            status, code, detail = 408, "BODY_TOO_SLOW", "the request body did not arrive in time"
        body = problem(status, code, detail)
        # The rest of the body is not read, so the connection cannot carry another request.
        headers = [
            (b"content-type", MEDIA_TYPE.encode()),
            (b"content-length", b"%d" % len(body)),
            (b"connection", b"close"),
        ]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": body})
