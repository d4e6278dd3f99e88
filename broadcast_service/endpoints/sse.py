"""The feed as server-sent events (the HTML standard, section 9.2), one item per stream.

``/sse/items/{id}``, with ``?since=`` like a WebSocket; a browser that reconnects by itself sends its last version in
the header Last-Event-ID. All else is as on a WebSocket: frames, limits, and what happens to a viewer that does not
read.
"""

from __future__ import annotations

import asyncio
import random
from typing import Final
from uuid import uuid4

from redis.exceptions import RedisError
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send
from typing_extensions import override

from broadcast_service.core.close_codes import INTERNAL_ERROR
from broadcast_service.core.frames import Frame, FrameKind, version_text
from broadcast_service.endpoints.admission import ConnectRequest, connect_request_of, refusal
from broadcast_service.endpoints.watch import Session, greet
from broadcast_service.service import Service
from broadcast_service.transport.connection import Connection
from broadcast_service.transport.streams import stream_of
from shared.domain.errors import ItemNotFound
from shared.http.problems import problem

RETRY_MS: Final = (1_000, 3_000)
"""How long a browser waits before it reconnects; random, so that not all come at once."""

_HEADERS: Final = {
    "content-type": "text/event-stream; charset=utf-8",
    # No proxy may cache, change or buffer the stream.
    "cache-control": "no-store, no-transform",
    "x-accel-buffering": "no",
}
_TYPE_STARTS: Final = len(b'{"type":"')


async def stream_item(request: Request) -> Response:
    """``/sse/items/{item_id}``: a stream, or a problem response."""
    service: Service = request.state.service
    item_id: str = request.path_params["item_id"]
    response = await _stream(request, service, item_id)
    if not isinstance(response, EventStream):
        service.metrics.upgrades_refused[str(response.status_code)] += 1
    return response


async def _stream(request: Request, service: Service, item_id: str) -> Response:
    wanted = connect_request_of(request, item_id, service, last_event_id=request.headers.get("last-event-id"))
    if isinstance(wanted, Response):
        return wanted
    refused = refusal(service, wanted.address)
    if refused is None and not await _may_exist(service, item_id):
        missing = ItemNotFound(item_id)
        return problem(404, missing.code, str(missing))
    if request.method == "HEAD":
        return refused or Response(headers=_HEADERS)
    return refused or EventStream(service, wanted)


async def _may_exist(service: Service, item_id: str) -> bool:
    """Whether the item may be watched. If Redis or the archive cannot be asked, or Redis has lost the item, the stream
    waits for it, like a WebSocket."""
    if service.settings.open_catalogue or service.hub.state_of(item_id) is not None:
        return True
    reader = service.reader
    try:
        return (
            await reader.read(item_id) is not None
            or await reader.read_left(item_id) is not None
            or await reader.is_lost(item_id)
        )
    except (RedisError, OSError, TimeoutError, KeyError, ValueError):
        return True


class EventStream(Response):
    """The response: its head goes out through ASGI, all that follows bypasses ASGI."""

    def __init__(self, service: Service, wanted: ConnectRequest) -> None:
        super().__init__(headers=_HEADERS)
        # Without a length uvicorn sends chunks.
        del self.headers["content-length"]
        self._service = service
        self._wanted = wanted

    @override
    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        service = self._service
        # Nothing is awaited from here to `enter`. Otherwise several requests could pass a limit that has room for one.
        refused = refusal(service, self._wanted.address)
        if refused is not None:
            await refused(scope, receive, send)
            return
        transport = stream_of(scope)
        connection = Connection(
            transport,
            uuid4().hex,
            single=True,
            limits=service.outgoing_limits,
            metrics=service.metrics,
            clock=asyncio.get_running_loop().time,
            encode=sse_of,
        )
        service.enter(connection, address=self._wanted.address)
        try:
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            transport.take_over(Session(service, connection, full=self._wanted.full), scope)
        except BaseException:
            service.leave(connection)
            raise
        if transport.is_writable:
            transport.write(b"retry: %d\n\n" % random.randint(*RETRY_MS))
        try:
            greet(service, connection, self._wanted)
        except Exception:
            connection.close(INTERNAL_ERROR)
            raise


def sse_of(frame: Frame) -> bytes:
    """The frame as a server-sent event, made once and kept with the frame for all streams.

    Only snapshots and events have an id, which browsers send back as Last-Event-ID: the version that the viewer was
    shown. Other frames may name a version that the viewer has not been shown yet.
    """
    if frame.sse is None:
        text = frame.text
        kind = text[_TYPE_STARTS : text.index(b'"', _TYPE_STARTS)]
        has_version = frame.kind in (FrameKind.SNAPSHOT, FrameKind.EVENT)
        first = f"id: {version_text(frame.version)}\n".encode() if has_version else b""
        frame.sse = b"%bevent: %b\ndata: %b\n\n" % (first, kind, text)
    return frame.sse
