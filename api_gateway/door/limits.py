"""Bounds on request bodies for everything behind the hot path."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Final

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from api_gateway.context import Context
from api_gateway.contract.problems import problem_of
from api_gateway.door.rates import peer_of
from shared.domain.errors import BiddingError
from shared.http.problems import MEDIA_TYPE, problem_body

DISCARDED_BYTES_MAX: Final = 32 * 1024**2
DISCARD_S: Final = 5.0


async def refuse(status: int, code: str, detail: str, receive: Receive, send: Send) -> None:
    """Answer with a problem before the whole body was read, and close the connection; see :func:`refuse_with`."""
    await refuse_with(status, problem_body(status, code, detail), {}, receive, send)


async def refuse_with(status: int, body: bytes, extra: Mapping[str, str], receive: Receive, send: Send) -> None:
    """Answer before the whole body was read, and close the connection. ``extra``: headers.

    A connection that is closed with unread bytes is reset, and the client may lose the answer over it. So the answer
    goes out first, and what still arrives is thrown away for a while (bounded in bytes and in time) before the close.
    """
    headers = [
        *((name.encode(), value.encode()) for name, value in extra.items()),
        (b"content-type", MEDIA_TYPE.encode()),
        (b"content-length", b"%d" % len(body)),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body, "more_body": True})
    await _discard(receive)
    await send({"type": "http.response.body", "body": b""})


async def _discard(receive: Receive) -> None:
    """Throw away what still arrives, for a while."""
    discarded = 0
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(DISCARD_S):
            while discarded < DISCARDED_BYTES_MAX:
                message = await receive()
                discarded += len(message.get("body", b""))
                if message["type"] == "http.disconnect" or not message.get("more_body", False):
                    break


class BodyLimit:
    """ASGI middleware: 413 for a body over ``bytes_max``, or over what ``larger`` or ``streamed`` allow at its path.

    Bodies are small here, so the whole body is read before the application is called: it is counted as it arrives, a
    chunked body without a Content-Length is bounded as well, and no handler ever waits for a slow client. What has
    arrived is counted in ``Context.body_bytes`` until the request is answered, and refused where that is full.

    What goes to a path of ``streamed`` is read by its handler, which bounds it as well where it has no Content-Length.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        bytes_max: int,
        larger: Mapping[str, int] | None = None,
        streamed: Mapping[str, int] | None = None,
    ) -> None:
        self._app = app
        self._bytes_max = bytes_max
        self._larger = larger or {}
        self._streamed = streamed or {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] in ("GET", "HEAD", "OPTIONS"):
            await self._app(scope, receive, send)
            return
        if scope["path"] in self._streamed:
            await _streamed(self._app, scope, receive, send, self._streamed[scope["path"]])
            return
        bytes_max = max(self._bytes_max, self._larger.get(scope["path"], 0))
        declared = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
        held = _Held(scope)
        refusal: tuple[int, bytes, dict[str, str]] | None = None
        body: bytes | None = None
        try:
            try:
                body = await self._read(receive, bytes_max, held) if int(declared) <= bytes_max else None
            except ClientGone:
                return
            except BiddingError as error:
                refusal = problem_of(error)
            if body is not None:
                await self._app(scope, _replay(body, receive), send)
                return
            held.give_back()
            if refusal is None:
                refusal = 413, problem_body(413, "BODY_TOO_LARGE", f"the body may have {bytes_max} bytes"), {}
            await refuse_with(*refusal, receive, send)
        finally:
            held.give_back()

    async def _read(self, receive: Receive, bytes_max: int, held: _Held) -> bytes | None:
        """The whole body, or None where it is over the limit. Raises BiddingError where there is no room for it."""
        parts: list[bytes] = []
        length = 0
        while True:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise ClientGone
            parts.append(message.get("body", b""))
            length += len(parts[-1])
            if length > bytes_max:
                return None
            held.take(len(parts[-1]))
            if not message.get("more_body", False):
                return b"".join(parts)


def _replay(body: bytes, receive: Receive) -> Receive:
    whole: Message | None = {"type": "http.request", "body": body, "more_body": False}

    async def replay() -> Message:
        nonlocal whole
        if whole is None:
            return await receive()
        message, whole = whole, None
        return message

    return replay


class _Held:
    """The bytes of one request that are counted."""

    def __init__(self, scope: Scope) -> None:
        context: Context = scope["state"]["context"]
        self._all = context.body_bytes
        self._address = context.rates.address(peer_of(scope), scope["headers"])
        self._count = 0

    def take(self, count: int) -> None:
        """Count bytes that have arrived. Raises TooManyBytes and Overloaded."""
        self._all.take(self._address, count)
        self._count += count

    def give_back(self) -> None:
        """Stop counting all of them. May be called more than once."""
        count, self._count = self._count, 0
        self._all.give_back(self._address, count)


async def _streamed(app: ASGIApp, scope: Scope, receive: Receive, send: Send, bytes_max: int) -> None:
    """Let the application read the body itself. Where it answers before the body has come, the connection is closed as
    in :func:`refuse_with`."""
    declared = next((value for name, value in scope["headers"] if name == b"content-length"), b"0")
    if int(declared) > bytes_max:
        await refuse(413, "BODY_TOO_LARGE", f"the body may have {bytes_max} bytes", receive, send)
        return
    is_read = False

    async def noticed() -> Message:
        nonlocal is_read
        message = await receive()
        is_read = is_read or not message.get("more_body", False)
        return message

    async def answer(message: Message) -> None:
        if is_read:
            await send(message)
        elif message["type"] == "http.response.start":
            await send({**message, "headers": [*message["headers"], (b"connection", b"close")]})
        elif message.get("more_body", False):
            await send(message)
        else:
            await send({**message, "more_body": True})
            await _discard(receive)
            await send({"type": "http.response.body", "body": b""})

    await app(scope, noticed, answer)


class ClientGone(Exception):
    """The client closed the connection before its request was complete: there is nobody to answer."""
