"""uvicorn's WebSocket protocol, extended by what ASGI does not offer.

ASGI's ``send`` waits while a client's buffer is full, even for a close frame, and encodes the same text again for every
client. Here an encoded frame is written straight to the transport, the state of the buffer is known, and a client that
does not read is disconnected in the end.

ASGI also keeps a task, a queue and the whole request while a WebSocket is open. Here the application accepts it, hands
it to a :class:`Listener` and returns; from then on an open WebSocket is a few small objects and no task.

uvicorn and the websockets library do the handshake, pings, closing and all parsing.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from asyncio import TimerHandle
from asyncio.transports import BaseTransport
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, Final, Protocol, cast

from typing_extensions import override
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.exceptions import InvalidState
from websockets.frames import Frame, Opcode
from websockets.http11 import Request

from shared.pacing.turns import Turns

EXTENSION: Final = "direct.transport"
"""The key of the protocol in the ASGI scope's extensions."""

OPEN_S: Final = 10.0
"""How long it may take until a WebSocket is taken over, or refused and gone."""

CLOSE_GRACE_S: Final = 3.0
"""How long a client may take to read what was sent, and to answer a close frame."""

BUFFER_HIGH_BYTES: Final = 64 * 1024
"""A client counts as slow from so many bytes in the transport's own buffer, beyond the kernel's."""

PARSE_STEP_BYTES: Final = 512
"""Bytes that are parsed in one step: at most 85 frames, about a millisecond. Any of them may end the connection."""

AFTER_CLOSE_BYTES_MAX: Final = 32 * 1024
"""Bytes that are still parsed after a close frame was sent, to find the answer: about as many as may be in flight. More
are ignored."""

RECEIVE_BUFFER_BYTES: Final = 16 * 1024
"""The kernel's receive buffer of a WebSocket (Linux doubles it). As much is read at once and waits to be parsed, and
clients send little."""


_BAD_REQUEST: Final = b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


class Listener(Protocol):
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


class DirectWebSocket(WebSocketsSansIOProtocol):
    """One WebSocket. The frames of a broadcaster and the answers of a gateway go out through it."""

    send_buffer_bytes = 0
    """Size of the kernel's send buffer, 0 for its default; :func:`websocket_protocol` sets it for all connections."""

    restart: ClassVar[tuple[int, str]] = (1012, "the service restarts")
    """The code and the reason with which the server closes when it stops."""
    given_up: ClassVar[frozenset[int]] = frozenset()
    """Codes with which clients are closed for what they send: nothing more that such a client sends is looked at."""

    is_writable = False
    """Whether a frame may be written now: taken over, not closing, and with room in the buffer. An attribute, not a
    property: it is read for every client of every frame."""

    listener: Listener | None = None
    on_lost: Callable[[], None] | None = None
    """Called when the connection is lost. Until then the HTTP protocol that counted it goes on counting it."""
    on_taken: Callable[[], None] | None = None
    """Called when the WebSocket is taken over, in place of ``on_lost``: from then on somebody else counts it."""
    was_asked = False
    """Whether the request to connect was one, and the application was asked."""
    open_timer: TimerHandle | None = None
    turns: ClassVar[Turns] = Turns()
    """The turns in which the messages of all clients are handled, so much in one turn of the loop;
    :func:`websocket_protocol` makes them."""
    unparsed = b""
    """What was read and is not parsed yet: at most one read, and what was on its way then."""
    inbox: deque[str | None] | None = None
    """Messages that were parsed and wait for their turn; None while there are none."""
    has_turns = False
    """Whether something waits, and nothing more is read."""
    has_head = False
    """Whether the request to connect was parsed."""
    is_deaf = False
    """Nothing more that the client says is looked at."""
    pinged_s = 0.0
    """When the last ping was sent, by the loop's clock; before the first one, when the WebSocket was taken over."""
    bytes_after_close = 0
    """Bytes that were parsed after the close frame was sent."""
    is_overdue = False
    """Whether the pong was late already at the last check."""

    # --------------------------------------------------------------------------------- what services use

    def take_over(self, listener: Listener) -> None:
        """Hand the WebSocket to the client. Call it once, after ``websocket.accept``; the application then returns, and
        the WebSocket stays open.
        """
        if self.disconnected or self.transport.is_closing():
            # Lost during the handshake; there will be no other call.
            self.loop.call_soon(listener.on_gone)
            return
        self._is_open_in_time()
        self.listener = listener
        taken, self.on_taken = self.on_taken, None
        if taken is not None:
            self.on_lost = None
            taken()
        self.pinged_s = self.loop.time()
        self.is_writable = self.handshake_complete and not self.close_sent and self.writable.is_set()
        # Free what an open connection no longer needs. The base class still puts the end into the queue.
        self.queue, self.writable = _NOWHERE, _ALWAYS
        del self.scope, self.request, self.response
        if self.is_writable:
            listener.on_writable()
        if self.unparsed:
            self.turns.begin(self._step)

    @property
    def write(self) -> Callable[[bytes], object]:
        """The transport's own function, without a wrapper: it is called for every frame of every client."""
        return self.transport.write

    def finish(self, code: int, reason: str) -> None:
        if self.close_sent or self.disconnected or not self.handshake_complete or self.transport.is_closing():
            return
        self._full()
        with contextlib.suppress(InvalidState):
            self.conn.send_close(code, reason)
        self.transport.write(b"".join(self.conn.data_to_send()))
        self.close_sent = True
        if code in self.given_up:
            # The client is told to go. To handle what it has sent since would cost as much as what it is closed for.
            self.is_deaf = True
            if self.transport.can_write_eof():
                self.transport.write_eof()
        # The caller may be in the middle of a loop over its clients.
        self.loop.call_soon(self._gone)
        # The base class cancels this timer when the client answers or the connection is lost.
        self.close_timer = self.loop.call_later(CLOSE_GRACE_S, self.transport.abort)

    def tend(self, now_s: float, ping: bytes, *, interval_s: float, timeout_s: float) -> None:
        """Send a ping if one is due, and disconnect a client that did not answer the last one.

        Called for each WebSocket regularly, instead of timers of its own.

        Args:
            now_s: the loop's clock.
            ping: four bytes, different from those of recent pings.
        """
        if self.listener is None or self.close_sent or self.transport.is_closing():
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
        if self.is_deaf or self.bytes_after_close >= AFTER_CLOSE_BYTES_MAX:
            return
        if not self.has_head:
            # uvicorn has read the whole request, and hands it over.
            self.has_head = True
            self.open_timer = self.loop.call_later(OPEN_S, self.transport.abort)
            super().data_received(data)
            if not self.was_asked:
                self._refuse_head()
            return
        self.unparsed += data
        if self.has_turns:
            return  # it was on its way when reading was paused
        self.has_turns = True
        self.transport.pause_reading()
        # Until the WebSocket is taken over nobody can receive a message.
        if self.listener is not None or self.close_sent:
            self.turns.begin(self._step)

    def _step(self) -> bool:
        """Parse a little of what was read, or hand over one message of it; whether there is more."""
        if self.inbox:
            self._deliver(self.inbox.popleft())
        else:
            self._parse()
            if self.inbox:
                self._deliver(self.inbox.popleft())
        if self.transport.is_closing() or self.is_deaf:
            self._forget_unheard()
        if self.inbox or self.unparsed:
            return True
        self._forget_unheard()
        self.has_turns = False
        if not self.transport.is_closing():
            self.transport.resume_reading()
        return False

    def _parse(self) -> None:
        part, self.unparsed = self.unparsed[:PARSE_STEP_BYTES], self.unparsed[PARSE_STEP_BYTES:]
        if self.close_sent:
            self.bytes_after_close += len(part)
            if self.bytes_after_close >= AFTER_CLOSE_BYTES_MAX:
                self.unparsed = b""
        try:
            super().data_received(part)
        except Exception:
            # The event loop treats a connection whose protocol fails in the same way.
            self.logger.exception("what a client sent was not handled")
            self.transport.abort()

    def _forget_unheard(self) -> None:
        self.unparsed, self.inbox = b"", None

    def _refuse_head(self) -> None:
        """The websockets library does not accept the request to connect, which uvicorn accepted: the library has
        stricter bounds."""
        self.transport.write(b"".join(self.conn.data_to_send()) or _BAD_REQUEST)
        self.is_deaf = True
        self.transport.close()
        self.loop.call_later(CLOSE_GRACE_S, self.transport.abort)

    def _is_open_in_time(self) -> None:
        if self.open_timer is not None:
            self.open_timer.cancel()
            self.open_timer = None

    @override
    def handle_connect(self, event: Request) -> None:
        self.was_asked = True
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
            if self.listener is not None:
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
        if self.listener is not None and not self.close_sent and not self.transport.is_closing():
            self.is_writable = True
            self.listener.on_writable()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._is_open_in_time()
        self._gone()
        if self.on_lost is not None:
            self.on_lost()

    @override
    def shutdown(self) -> None:
        """The server stops: tell the client."""
        if self.handshake_complete and not self.close_sent:
            self.finish(*self.restart)
        elif not self.handshake_complete:
            super().shutdown()

    @override
    def start_keepalive(self) -> None:
        """No timers: the service calls :meth:`tend`."""

    # A closed transport keeps its unsent bytes and waits, for ever if the client does not read. So wherever uvicorn
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
        # A client that pings and does not read gets no pongs: they would pile up.
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
        """A message waits for its turn behind those of other clients: a client that sends many must not delay the
        frames of others."""
        if self.inbox is None:
            self.inbox = deque()
        self.inbox.append(text)

    def _deliver(self, text: str | None) -> None:
        if self.listener is not None and not self.close_sent:
            self.listener.on_message(text)

    def _note_part(self, event: Frame) -> None:
        if not event.fin:
            self._note_noise()

    def _note_noise(self) -> None:
        if self.listener is not None and not self.close_sent:
            self.listener.on_noise()

    def _full(self) -> None:
        self.is_writable = False
        if self.listener is not None:
            self.listener.on_full()

    def _gone(self) -> None:
        self._full()
        listener, self.listener = self.listener, None
        if listener is not None:
            listener.on_gone()

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
    """Set the kernel's buffers of a client's socket; ``send_bytes`` 0 keeps the default."""
    sock = transport.get_extra_info("socket")
    if sock is None:
        return
    if send_bytes:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_bytes)
    if receive:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)


def websocket_protocol(
    *, send_buffer_bytes: int, restart: tuple[int, str], given_up: frozenset[int] = frozenset()
) -> type[DirectWebSocket]:
    """The protocol for ``uvicorn.Config(ws=...)`` with these settings."""
    settings = {"send_buffer_bytes": send_buffer_bytes, "restart": restart, "given_up": given_up, "turns": Turns()}
    return type("ConfiguredWebSocket", (DirectWebSocket,), settings)


def transport_of(scope: Mapping[str, Any]) -> DirectWebSocket:
    """The protocol behind an ASGI WebSocket.

    Raises:
        RuntimeError: the server was not configured with :class:`DirectWebSocket`.
    """
    transport = scope.get("extensions", {}).get(EXTENSION)
    if not isinstance(transport, DirectWebSocket):
        raise RuntimeError("WebSockets need uvicorn with ws=shared.http.protocols.websockets.websocket_protocol(...)")
    return transport
