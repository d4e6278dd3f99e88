"""uvicorn's WebSocket protocol, with what a feed needs and ASGI has no words for.

ASGI's ``send`` waits for a viewer whose buffer is full, also with a close frame, and encodes the same text for every
viewer again. Here a prepared frame is written straight to the transport, the state of the buffer can be asked, and a
viewer that does not read is cut off in the end instead of being waited for.

ASGI also keeps a task, a queue and the whole request for as long as a WebSocket is open. Here the application accepts
it, hands it to a :class:`Viewer` and returns; from then on an open WebSocket is a few small objects and no task.

The handshake, pings, closing and the parsing of everything incoming are uvicorn's and the websockets library's.
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
"""Where the ASGI scope's extensions carry the protocol."""

CLOSE_GRACE_S: Final = 3.0
"""How long a viewer may take to answer a close frame, and to read what was sent before it."""

BUFFER_HIGH_BYTES: Final = 64 * 1024
"""Bytes in the transport's own buffer, above the kernel's, from which on a viewer counts as slow."""

PARSED_BYTES: Final = 1024
"""What is parsed before any of it is dealt with: 170 of the shortest frames. Each may be the one that ends it all."""

LAST_WORDS_BYTES: Final = 32 * 1024
"""What is still parsed after a close frame was sent, to find the answer in it: about as much as may be under way then.
Who says more is not listened to any more."""

RECEIVE_BUFFER_BYTES: Final = 16 * 1024
"""The kernel's buffer for what a WebSocket says (Linux takes twice that). All of it is parsed in one go, during which
nobody else is served, and viewers have little to say."""


class Viewer(Protocol):
    """Who is told what comes from the socket. All calls but one come from the event loop, not from within a write."""

    def on_message(self, text: str | None) -> None:
        """One whole message; None where it was binary."""

    def on_noise(self) -> None:
        """Anything else that was said and takes time: a ping, a pong without one, a part of a message."""

    def on_full(self) -> None:
        """``is_writable`` turned False. The only call that may come from within a write: it must not write itself."""

    def on_writable(self) -> None:
        """``is_writable`` turned True."""

    def on_gone(self) -> None:
        """The last call: the connection is lost, or is being closed by either side."""


class FeedProtocol(WebSocketsSansIOProtocol):
    """One WebSocket. Implements :class:`~broadcast_service.transport.connection.Transport`."""

    send_buffer_bytes = 0
    """Size of the kernel's send buffer, 0 for its own choice; set for all connections by :func:`protocol_class`."""

    is_writable = False
    """Whether a frame may be written now: taken over, not closing, and with room in the buffer. An attribute and no
    property: it is read for every viewer of every frame."""

    viewer: Viewer | None = None
    said: deque[str | None] | None = None
    """Messages that wait for their turn; None while nothing was said."""
    pinged_s = 0.0
    """When the last ping was sent, by the loop's clock; until then, when the WebSocket was taken over."""
    last_words_bytes = 0
    """What was parsed after the close frame was sent."""
    is_overdue = False
    """Whether the pong was missing already when it was looked for the last time."""

    # ------------------------------------------------------------------------------------- what the feed uses

    def take_over(self, viewer: Viewer) -> None:
        """From now on the WebSocket is the viewer's. To be called once, after ``websocket.accept``; the application
        then returns, and the WebSocket stays open.
        """
        if self.disconnected or self.transport.is_closing():
            # Lost during the handshake; nobody will tell us again.
            self.loop.call_soon(viewer.on_gone)
            return
        self.viewer = viewer
        self.pinged_s = self.loop.time()
        self.is_writable = self.handshake_complete and not self.close_sent and self.writable.is_set()
        early = self.queue
        # What a long-lived connection needs no longer. The base class still tells the queue about the end.
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
        """The transport's own function: what is called for every frame of every viewer has nothing around it."""
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
        """Send a ping where one is due, and give up a viewer that did not answer the last one.

        Called for each WebSocket now and then, instead of one timer or two of its own.

        Args:
            now_s: the loop's clock.
            ping: four bytes that no recent ping had.
        """
        if self.viewer is None or self.close_sent or self.transport.is_closing():
            return
        waited_s = now_s - self.pinged_s
        if self.pending_ping_payload is not None:
            if waited_s < timeout_s:
                return
            if self.is_overdue:
                self.keepalive_timeout()
            # Where this process itself stood still, the pong may be here and not read yet: look again next time.
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
        for start in range(0, len(data), PARSED_BYTES):
            if self.last_words_bytes >= LAST_WORDS_BYTES or self.transport.is_closing():
                return
            part = data[start : start + PARSED_BYTES]
            if self.close_sent:
                self.last_words_bytes += len(part)
            super().data_received(part)

    @override
    def handle_connect(self, event: Request) -> None:
        super().handle_connect(event)
        if not self.close_sent:
            # The application's task was only created; it runs after this.
            extensions = cast(dict[str, Any], self.scope["extensions"])
            extensions[EXTENSION] = self

    @override
    async def run_asgi(self) -> None:
        """The application returns early where it has handed the WebSocket over; uvicorn would close it then."""
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
        """The server stops. What is still open is closed like everything else."""
        if self.handshake_complete and not self.close_sent:
            self.finish(SERVICE_RESTART.code, SERVICE_RESTART.reason)
        elif not self.handshake_complete:
            super().shutdown()

    @override
    def start_keepalive(self) -> None:
        """No timers: :meth:`tend` is called from outside."""

    # A transport that is closed keeps its unsent bytes and waits, for ever where the viewer does not read. So wherever
    # uvicorn closes one, it is cut off a little later.

    @override
    def handle_close(self, event: Frame) -> None:
        super().handle_close(event)
        self._cut_off_later()

    @override
    def handle_parser_exception(self) -> None:
        super().handle_parser_exception()
        self._cut_off_later()

    # Each part of a message is kept until the last one is there, and an empty one has no size that would be too much.

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
        # Who pings and does not read gets no pongs: they would pile up.
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
        """One message now, and what follows it each in a turn of the loop of its own: a viewer that says a lot at once
        must not hold up the frames of the others.
        """
        if self.said is not None:
            self.said.append(text)
            return
        self.said = deque()
        self.transport.pause_reading()
        self.loop.call_soon(self._receive_next)
        self._deliver(text)

    def _receive_next(self) -> None:
        if self.said:
            self.loop.call_soon(self._receive_next)
            self._deliver(self.said.popleft())
            return
        self.said = None
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
        """Forget it."""


class _AlwaysSet(asyncio.Event):
    @override
    def clear(self) -> None:
        """Stays set."""


_NOWHERE: Final = _Nowhere()
_ALWAYS: Final = _AlwaysSet()
_ALWAYS.set()


def size_buffers(transport: BaseTransport, send_bytes: int, *, receive: bool = True) -> None:
    """Set the kernel's buffers of a viewer's socket; ``send_bytes`` 0 leaves that one as it is."""
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
