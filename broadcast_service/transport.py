"""uvicorn's WebSocket protocol, with what a feed needs and ASGI has no words for.

ASGI's ``send`` waits for a viewer whose buffer is full, also with a close frame, and encodes the same text for every
viewer again. Here a prepared frame is written straight to the transport, the state of
the buffer can be asked, and a viewer that does not read is cut off in the end instead of being waited for.

The handshake, pings, closing and everything incoming are uvicorn's and the websockets library's as they are.
"""

from __future__ import annotations

import contextlib
import socket
from asyncio.transports import BaseTransport
from collections.abc import Callable, Mapping
from typing import Any, Final, cast

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.exceptions import InvalidState
from websockets.frames import Frame
from websockets.http11 import Request

from broadcast_service.close_codes import SERVICE_RESTART

EXTENSION: Final = "feed.transport"
"""Where the ASGI scope's extensions carry the protocol."""

CLOSE_GRACE_S: Final = 3.0
"""How long a viewer may take to answer a close frame, and to read what was sent before it."""

BUFFER_HIGH_BYTES: Final = 64 * 1024
"""Bytes in the transport's own buffer, above the kernel's, from which on a viewer counts as slow."""


class FeedProtocol(WebSocketsSansIOProtocol):
    """One WebSocket. Implements :class:`~broadcast_service.connection.Transport`."""

    send_buffer_bytes = 0
    """Size of the kernel's send buffer, 0 for its own choice; set for all connections by :func:`protocol_class`."""

    on_writable: Callable[[], None] | None = None
    """Called when the buffer has room again."""

    # ------------------------------------------------------------------------------------- what the feed uses

    @property
    def is_writable(self) -> bool:
        return (
            self.writable.is_set()
            and self.handshake_complete
            and not self.close_sent
            and not self.transport.is_closing()
        )

    def write(self, data: bytes) -> None:
        self.transport.write(data)

    def finish(self, code: int, reason: str) -> None:
        if self.close_sent or self.disconnected or not self.handshake_complete or self.transport.is_closing():
            return
        with contextlib.suppress(InvalidState):
            self.conn.send_close(code, reason)
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        self.stop_keepalive()
        # Ends the application's receive loop; the closing handshake goes on without it.
        self.queue.put_nowait({"type": "websocket.disconnect", "code": code, "reason": reason})
        if self.read_paused:
            self.read_paused = False
            self.transport.resume_reading()
        # The base class cancels this timer when the viewer answers or the connection is lost.
        self.close_timer = self.loop.call_later(CLOSE_GRACE_S, self.transport.abort)

    # -------------------------------------------------------------------------------------- called by uvicorn

    def connection_made(self, transport: BaseTransport) -> None:
        super().connection_made(transport)
        self.transport.set_write_buffer_limits(high=BUFFER_HIGH_BYTES)
        sock = transport.get_extra_info("socket")
        if self.send_buffer_bytes and sock is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self.send_buffer_bytes)

    def handle_connect(self, event: Request) -> None:
        super().handle_connect(event)
        if not self.close_sent:
            # The application's task was only created; it runs after this.
            extensions = cast(dict[str, Any], self.scope["extensions"])
            extensions[EXTENSION] = self

    def resume_writing(self) -> None:
        super().resume_writing()
        if self.on_writable is not None:
            self.on_writable()

    def connection_lost(self, exc: Exception | None) -> None:
        self.on_writable = None
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """The server stops. What is still open is closed like everything else."""
        if self.handshake_complete and not self.close_sent:
            self.finish(SERVICE_RESTART.code, SERVICE_RESTART.reason)
        elif not self.handshake_complete:
            super().shutdown()

    # A transport that is closed keeps its unsent bytes and waits, for ever where the viewer does not read. So wherever
    # uvicorn closes one, it is cut off a little later.

    def handle_close(self, event: Frame) -> None:
        super().handle_close(event)
        self._cut_off_later()

    def handle_parser_exception(self) -> None:
        super().handle_parser_exception()
        self._cut_off_later()

    def keepalive_timeout(self) -> None:
        super().keepalive_timeout()
        self._cut_off_later()

    def _cut_off_later(self) -> None:
        if not self.disconnected:
            self.loop.call_later(CLOSE_GRACE_S, self.transport.abort)


def protocol_class(*, send_buffer_bytes: int) -> type[FeedProtocol]:
    """The protocol for ``uvicorn.Config(ws=...)`` with these settings."""
    return type("ConfiguredFeedProtocol", (FeedProtocol,), {"send_buffer_bytes": send_buffer_bytes})


def transport_of(scope: Mapping[str, Any]) -> FeedProtocol:
    """The protocol behind an ASGI WebSocket.

    Raises:
        RuntimeError: the server was not configured with :func:`protocol_class`.
    """
    transport = scope.get("extensions", {}).get(EXTENSION)
    if not isinstance(transport, FeedProtocol):
        raise RuntimeError("the feed must run under uvicorn with ws=broadcast_service.transport.protocol_class(...)")
    return transport
