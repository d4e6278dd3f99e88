"""Bounds on request bodies for everything behind the hot path."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api_gateway.problems import MEDIA_TYPE, problem

DISCARDED_BYTES_MAX: Final = 32 * 1024**2
DISCARD_S: Final = 5.0


async def refuse(status: int, code: str, detail: str, receive: Receive, send: Send) -> None:
    """Answer before the whole body was read, and close the connection.

    A connection that is closed with unread bytes is reset, and the client may lose the answer over it. So the answer
    goes out first, and what still arrives is thrown away for a while (bounded in bytes and in time) before the close.
    """
    body = problem(status, code, detail)
    headers = [
        (b"content-type", MEDIA_TYPE.encode()),
        (b"content-length", b"%d" % len(body)),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": True})
    discarded = 0
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(DISCARD_S):
            while discarded < DISCARDED_BYTES_MAX:
                message = await receive()
                discarded += len(message.get("body", b""))
                if message["type"] == "http.disconnect" or not message.get("more_body", False):
                    break
    await send({"type": "http.response.body", "body": b""})


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
            if isinstance(error, _TooLarge):
                await refuse(413, "BODY_TOO_LARGE", f"the body may have {self._bytes_max} bytes", receive, send)
            else:
                await refuse(408, "BODY_TOO_SLOW", "the request body did not arrive in time", receive, send)
