"""uvicorn's HTTP protocol, where a response may go on as an event stream that is written to like a WebSocket.

See :mod:`shared.http.protocols.websockets` for why. The head of the response goes out through ASGI, like that of
every other one; after that the application has returned, and there is no task that waits for a slow reader.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping
from typing import Any, Final, cast

from typing_extensions import override

from shared.http.connection_limits import ConnectionLimits
from shared.http.protocols.bounded import BoundedHttpProtocol
from shared.http.protocols.websockets import CLOSE_GRACE_S, EXTENSION, DirectWebSocket, Listener, size_buffers

_CYCLE: Final = "feed.cycle"


class FeedHttpProtocol(BoundedHttpProtocol):
    """Plain HTTP, where a response may become an event stream that is written to like a WebSocket.

    A stream implements :class:`~broadcast_service.transport.connection.Transport`; what is written are chunks of
    the body.
    """

    send_buffer_bytes = 0
    is_writable = False
    viewer: Listener | None = None
    is_stream = False

    def take_over(self, viewer: Listener, scope: Mapping[str, Any]) -> None:
        """Give the rest of the response to this request to the viewer. Call it once, after the head was sent; the
        application then returns, and the response goes on.
        """
        if self.transport.is_closing():
            self.loop.call_soon(viewer.on_gone)
            return
        size_buffers(self.transport, self.send_buffer_bytes, receive=False)
        self.leave_answers()
        # Whatever the client sends on a stream has no meaning, nor has a further request that it sent in advance.
        self.stop_parsing()
        self.pipeline.clear()
        self.is_stream = True
        self.viewer = viewer
        # To uvicorn the response is complete: it neither waits for the application nor closes the connection.
        cycle = scope["extensions"][_CYCLE]()
        if cycle is not None:
            cycle.response_complete = True
        self.is_writable = not self.flow.write_paused
        if self.is_writable:
            viewer.on_writable()

    def write(self, data: bytes) -> None:
        self.transport.write(b"%x\r\n%b\r\n" % (len(data), data))

    def finish(self, code: int, reason: str) -> None:
        """End the stream in good order. Code and reason have no place in HTTP; the client reconnects by itself."""
        if not self.is_stream or self.transport.is_closing():
            return
        self.is_writable = False
        self.transport.write(b"0\r\n\r\n")
        self.transport.close()
        # `close` waits for a reader that may have stopped reading.
        self.loop.call_later(CLOSE_GRACE_S, self.transport.abort)

    # -------------------------------------------------------------------------------------- called by uvicorn

    @override
    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        # The application's task was only created; it runs after this. `cycle` is that of the latest request, which may
        # be another one by then. A weak reference makes no circle.
        if self.cycle is not None:  # it is no WebSocket
            cast(dict[str, Any], self.scope)["extensions"] = {EXTENSION: self, _CYCLE: weakref.ref(self.cycle)}

    @override
    def handle_websocket_upgrade(self) -> None:
        super().handle_websocket_upgrade()
        # Once it is a viewer, it is counted as one, and no longer as an HTTP connection.
        protocol = self.transport.get_protocol()
        if isinstance(protocol, DirectWebSocket):
            protocol.on_taken = protocol.on_lost = self.uncount
        else:
            self.uncount()
        self._forget()

    @override
    def pause_writing(self) -> None:
        super().pause_writing()
        self.is_writable = False
        if self.viewer is not None:
            self.viewer.on_full()

    @override
    def resume_writing(self) -> None:
        super().resume_writing()
        if self.viewer is not None and not self.transport.is_closing():
            self.is_writable = True
            self.viewer.on_writable()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.is_writable = False
        viewer, self.viewer = self.viewer, None
        if viewer is not None:
            viewer.on_gone()
        self._forget()

    def _forget(self) -> None:
        """Cut the cycles of references, which would keep this in memory until the garbage collector runs."""
        gone = cast(Any, self)
        gone.parser = gone.scope = gone.headers = gone.cycle = None


def http_protocol_class(
    *, send_buffer_bytes: int, head_timeout_s: float, connection_limits: ConnectionLimits | None = None
) -> type[FeedHttpProtocol]:
    """The protocol for ``uvicorn.Config(http=...)`` with these settings."""
    settings = {
        "send_buffer_bytes": send_buffer_bytes,
        "timeout_s": head_timeout_s,
        "connection_limits": connection_limits,
    }
    return type("ConfiguredHttpProtocol", (FeedHttpProtocol,), settings)


def stream_of(scope: Mapping[str, Any]) -> FeedHttpProtocol:
    """The protocol behind an ASGI request.

    Raises:
        RuntimeError: the server was not configured with :func:`http_protocol_class`.
    """
    transport = scope.get("extensions", {}).get(EXTENSION)
    if not isinstance(transport, FeedHttpProtocol):
        raise RuntimeError(
            "the feed must run under uvicorn with http=broadcast_service.transport.streams.http_protocol_class(...)"
        )
    return transport
