"""uvicorn's WebSocket protocol, extended by what a feed needs and ASGI does not offer.

ASGI's ``send`` waits while a viewer's buffer is full, even for a close frame, and encodes the same text again for every
viewer. Here an encoded frame is written straight to the transport, the state of the buffer is known, and a viewer that
does not read is disconnected in the end.

ASGI also keeps a task, a queue and the whole request while a WebSocket is open. Here the application accepts it, hands
it to a :class:`Viewer` and returns; from then on an open WebSocket is a few small objects and no task.

uvicorn and the websockets library do the handshake, pings, closing and all parsing.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from asyncio.transports import BaseTransport
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final, Protocol, cast

from typing_extensions import override
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.exceptions import InvalidState
from websockets.frames import Frame, Opcode
from websockets.http11 import Request

from broadcast_service.core.close_codes import SERVICE_RESTART

EXTENSION: Final = "feed.transport"
"""The key of the protocol in the ASGI scope's extensions."""

CLOSE_GRACE_S: Final = 3.0
"""How long a viewer may take to read what was sent, and to answer a close frame."""

BUFFER_HIGH_BYTES: Final = 64 * 1024
"""A viewer counts as slow from so many bytes in the transport's own buffer, beyond the kernel's."""

PARSE_STEP_BYTES: Final = 1024
"""Bytes that are parsed before their frames are handled: at most 170 frames. Any of them may end the connection."""

AFTER_CLOSE_BYTES_MAX: Final = 32 * 1024
"""Bytes that are still parsed after a close frame was sent, to find the answer: about as many as may be in flight. More
are ignored."""

RECEIVE_BUFFER_BYTES: Final = 16 * 1024
"""The kernel's receive buffer of a WebSocket (Linux doubles it). All of it is parsed in one go, while nobody else is
served, and viewers send little."""


class Viewer(Protocol):
    """Is told what happens on the socket. Only ``on_full`` may be called from within a write."""

    def on_message(self, text: str | None) -> None:
        """One whole message; None where it was binary."""

    def on_noise(self) -> None:
        """Anything else that takes time to handle: a ping, an unsolicited pong, a fragment of a message."""

    def on_full(self) -> None:
        """``is_writable`` became False. The only call that may come from within a write: it must not write."""

    def on_writable(self) -> None:
        """``is_writable`` became True."""

    def on_gone(self) -> None:
        """The last call: the connection is lost, or one side is closing it."""


class FeedProtocol(WebSocketsSansIOProtocol):
    """One WebSocket. Implements :class:`~broadcast_service.transport.connection.Transport`."""

    send_buffer_bytes = 0
    """Size of the kernel's send buffer, 0 for its default; :func:`protocol_class` sets it for all connections."""

    is_writable = False
    """Whether a frame may be written now: taken over, not closing, and with room in the buffer. An attribute, not a
    property: it is read for every viewer of every frame."""

    viewer: Viewer | None = None
    inbox: deque[str | None] | None = None
    """Received messages that wait for their turn; None while no message is being handled."""
    pinged_s = 0.0
    """When the last ping was sent, by the loop's clock; before the first one, when the WebSocket was taken over."""
    bytes_after_close = 0
    """Bytes that were parsed after the close frame was sent."""
    is_overdue = False
    """Whether the pong was late already at the last check."""

    # ------------------------------------------------------------------------------------- what the feed uses

    def take_over(self, viewer: Viewer) -> None:
        """Hand the WebSocket to the viewer. Call it once, after ``websocket.accept``; the application then returns, and
        the WebSocket stays open.
        """
        if self.disconnected or self.transport.is_closing():
            # Lost during the handshake; there will be no other call.
            self.loop.call_soon(viewer.on_gone)
            return
        self.viewer = viewer
        self.pinged_s = self.loop.time()
        self.is_writable = self.handshake_complete and not self.close_sent and self.writable.is_set()
        early = self.queue
        # Free what an open connection no longer needs. The base class still puts the end into the queue.
        self.queue, self.writable = _NOWHERE, _ALWAYS
        del self.scope, self.request, self.response
        if self.read_paused:
            self.read_paused = False
            self.transport.resume_reading()
        if self.is_writable:
            viewer.on_writable()
        while not early.empty():
            message = early.get_nowait()
            if message["type"] == "websocket.receive":
                self._receive(message.get("text"))

    @property
    def write(self) -> Callable[[bytes], object]:
        """The transport's own function, without a wrapper: it is called for every frame of every viewer."""
        return self.transport.write

    def finish(self, code: int, reason: str) -> None:
        if self.close_sent or self.disconnected or not self.handshake_complete or self.transport.is_closing():
            return
        self._full()
        with contextlib.suppress(InvalidState):
            self.conn.send_close(code, reason)
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        # The hub may be in the middle of a loop over its viewers.
        self.loop.call_soon(self._gone)
        # The base class cancels this timer when the viewer answers or the connection is lost.
        self.close_timer = self.loop.call_later(CLOSE_GRACE_S, self.transport.abort)

    def tend(self, now_s: float, ping: bytes, *, interval_s: float, timeout_s: float) -> None:
        """Send a ping if one is due, and disconnect a viewer that did not answer the last one.

        Called for each WebSocket regularly, instead of timers of its own.

        Args:
            now_s: the loop's clock.
            ping: four bytes, different from those of recent pings.
        """
        if self.viewer is None or self.close_sent or self.transport.is_closing():
            return
        waited_s = now_s - self.pinged_s
        if self.pending_ping_payload is not None:
            if waited_s < timeout_s:
                return
            if self.is_overdue:
                self.keepalive_timeout()
            # If this process itself was suspended, the pong may have arrived unread: check again next time.
            self.is_overdue = True
        elif waited_s >= interval_s:
            self.pending_ping_payload, self.pinged_s = ping, now_s
            self.transport.write(Frame(Opcode.PING, ping).serialize(mask=False))

    # -------------------------------------------------------------------------------------- called by uvicorn

    @override
    def connection_made(self, transport: BaseTransport) -> None:
        super().connection_made(transport)
        self.transport.set_write_buffer_limits(high=BUFFER_HIGH_BYTES)
        size_buffers(transport, self.send_buffer_bytes)

    @override
    def data_received(self, data: bytes) -> None:
        if self.viewer is None and not self.close_sent:
            super().data_received(data)
            return
        for start in range(0, len(data), PARSE_STEP_BYTES):
            if self.bytes_after_close >= AFTER_CLOSE_BYTES_MAX or self.transport.is_closing():
                return
            part = data[start : start + PARSE_STEP_BYTES]
            if self.close_sent:
                self.bytes_after_close += len(part)
            super().data_received(part)

    @override
    def handle_connect(self, event: Request) -> None:
        super().handle_connect(event)
        if not self.close_sent:
            # The application's task exists but runs only after this.
            extensions = cast(dict[str, Any], self.scope["extensions"])
            extensions[EXTENSION] = self

    @override
    async def run_asgi(self) -> None:
        """Keep the WebSocket open when the application has handed it over and returned; uvicorn would close it."""
        try:
            await self.app(self.scope, self.receive, self.send)
        except BaseException:
            self.logger.exception("Exception in ASGI application\n")
            self.send_500_response()
        else:
            if self.viewer is not None:
                return
        if self.close_timer is None:
            self.transport.close()

    @override
    def send_receive_event_to_app(self) -> None:
        if self.queue is not _NOWHERE:
            super().send_receive_event_to_app()
            return
        data = self.frames[0] if len(self.frames) == 1 else b"".join(self.frames)
        self.frames = []
        if self.close_sent:
            return
        text: str | None = None
        if self.curr_msg_data_type == "text":
            try:
                text = data.decode()
            except UnicodeDecodeError:
                self.conn.fail(1007)
                self.handle_parser_exception()
                return
        self._receive(text)

    @override
    def pause_writing(self) -> None:
        super().pause_writing()
        self._full()

    @override
    def resume_writing(self) -> None:
        super().resume_writing()
        if self.viewer is not None and not self.close_sent and not self.transport.is_closing():
            self.is_writable = True
            self.viewer.on_writable()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._gone()

    @override
    def shutdown(self) -> None:
        """The server stops: tell the viewer to reconnect."""
        if self.handshake_complete and not self.close_sent:
            self.finish(SERVICE_RESTART.code, SERVICE_RESTART.reason)
        elif not self.handshake_complete:
            super().shutdown()

    @override
    def start_keepalive(self) -> None:
        """No timers: the service calls :meth:`tend`."""

    # A closed transport keeps its unsent bytes and waits, for ever if the viewer does not read. So wherever uvicorn
    # closes one, it is aborted a little later.

    @override
    def handle_close(self, event: Frame) -> None:
        super().handle_close(event)
        self._cut_off_later()

    @override
    def handle_parser_exception(self) -> None:
        super().handle_parser_exception()
        self._cut_off_later()

    # Fragments are kept until the message is complete, and empty ones never reach a size limit. So they are counted.

    @override
    def handle_text(self, event: Frame) -> None:
        super().handle_text(event)
        self._note_part(event)

    @override
    def handle_bytes(self, event: Frame) -> None:
        super().handle_bytes(event)
        self._note_part(event)

    @override
    def handle_cont(self, event: Frame) -> None:
        if not self.close_sent:
            super().handle_cont(event)
            self._note_part(event)

    @override
    def handle_ping(self) -> None:
        pong = b"".join(self.conn.data_to_send())
        # A viewer that pings and does not read gets no pongs: they would pile up.
        if self.is_writable:
            self.transport.write(pong)
        self._note_noise()

    @override
    def handle_pong(self, event: Frame) -> None:
        if self.pending_ping_payload is not None and bytes(event.data) == self.pending_ping_payload:
            self.pending_ping_payload = None
            self.is_overdue = False
        else:
            self._note_noise()

    @override
    def keepalive_timeout(self) -> None:
        super().keepalive_timeout()
        self._cut_off_later()

    # ------------------------------------------------------------------------------------------------- inside

    def _receive(self, text: str | None) -> None:
        """Handle one message now, and each further one in a later turn of the event loop: a viewer that sends many at
        once must not delay the frames of others.
        """
        if self.inbox is not None:
            self.inbox.append(text)
            return
        self.inbox = deque()
        self.transport.pause_reading()
        self.loop.call_soon(self._receive_next)
        self._deliver(text)

    def _receive_next(self) -> None:
        if self.inbox:
            self.loop.call_soon(self._receive_next)
            self._deliver(self.inbox.popleft())
            return
        self.inbox = None
        if not self.transport.is_closing():
            self.transport.resume_reading()

    def _deliver(self, text: str | None) -> None:
        if self.viewer is not None and not self.close_sent:
            self.viewer.on_message(text)

    def _note_part(self, event: Frame) -> None:
        if not event.fin:
            self._note_noise()

    def _note_noise(self) -> None:
        if self.viewer is not None and not self.close_sent:
            self.viewer.on_noise()

    def _full(self) -> None:
        self.is_writable = False
        if self.viewer is not None:
            self.viewer.on_full()

    def _gone(self) -> None:
        self._full()
        viewer, self.viewer = self.viewer, None
        if viewer is not None:
            viewer.on_gone()

    def _cut_off_later(self) -> None:
        self._gone()
        if not self.disconnected:
            self.loop.call_later(CLOSE_GRACE_S, self.transport.abort)


class _Nowhere(asyncio.Queue[Any]):
    @override
    def put_nowait(self, item: Any) -> None:
        """Discard it."""


class _AlwaysSet(asyncio.Event):
    @override
    def clear(self) -> None:
        """Stays set."""


_NOWHERE: Final = _Nowhere()
_ALWAYS: Final = _AlwaysSet()
_ALWAYS.set()


def size_buffers(transport: BaseTransport, send_bytes: int, *, receive: bool = True) -> None:
    """Set the kernel's buffers of a viewer's socket; ``send_bytes`` 0 keeps the default."""
    sock = transport.get_extra_info("socket")
    if sock is None:
        return
    if send_bytes:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_bytes)
    if receive:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)


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
        raise RuntimeError(
            "the feed must run under uvicorn with ws=broadcast_service.transport.websockets.protocol_class(...)"
        )
    return transport
