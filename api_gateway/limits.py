"""Bounds on request bodies for everything behind the hot path."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from shared.http.problems import MEDIA_TYPE, problem_body

DISCARDED_BYTES_MAX: Final = 32 * 1024**2
DISCARD_S: Final = 5.0


async def refuse(status: int, code: str, detail: str, receive: Receive, send: Send) -> None:
    """Answer before the whole body was read, and close the connection.

    A connection that is closed with unread bytes is reset, and the client may lose the answer over it. So the answer
    goes out first, and what still arrives is thrown away for a while (bounded in bytes and in time) before the close.
    """
    body = problem_body(status, code, detail)
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


class BodyLimit:
    """ASGI middleware: 413 for a body over ``bytes_max``.

    Bodies are small here, so the whole body is read before the application is called: it is counted as it arrives, a
    chunked body without a Content-Length is bounded as well, and no handler ever waits for a slow client.
    """

    def __init__(self, app: ASGIApp, *, bytes_max: int) -> None:
        self._app = app
        self._bytes_max = bytes_max

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD", "OPTIONS"):
            await self._app(scope, receive, send)
            return
        declared = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        body: bytes | None = None
        try:
            if int(declared) <= self._bytes_max:
                body = await self._read(receive)
        except ClientGone:
            return
        if body is None:
            await refuse(413, "BODY_TOO_LARGE", f"the body may have {self._bytes_max} bytes", receive, send)
            return
        whole: Message | None = {"type": "http.request", "body": body, "more_body": False}

        async def replay() -> Message:
            nonlocal whole
            if whole is None:
                return await receive()
            message, whole = whole, None
            return message

        await self._app(scope, replay, send)

    async def _read(self, receive: Receive) -> bytes | None:
        """The whole body, or None where it is over the limit."""
        parts: list[bytes] = []
        length = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            parts.append(message.get("body", b""))
            length += len(parts[-1])
            if length > self._bytes_max:
                return None
            if not message.get("more_body", False):
                return b"".join(parts)


class ClientGone(Exception):
    """The client closed the connection before its request was complete: there is nobody to answer."""
