"""The WebSocket of bids: none of its messages is taken while the session has no room."""

from __future__ import annotations

from typing import ClassVar

from typing_extensions import override

from api_gateway.bid_socket.messages import GOING_AWAY
from api_gateway.bid_socket.session import Session
from shared.http.protocols.websockets import DirectWebSocket
from shared.pacing.turns import Turns


class BidSocket(DirectWebSocket):
    """One WebSocket of bids. Implements :class:`api_gateway.bid_socket.session.Socket`."""

    restart: ClassVar[tuple[int, str]] = (GOING_AWAY.code, GOING_AWAY.reason)
    turns: ClassVar[Turns] = Turns()
    _session: Session | None = None
    # Whether the input waits until the session has room, and not for a turn.
    _is_held = False

    def open(self, session: Session) -> None:
        """Hand it to a session. Call it once, after ``websocket.accept``."""
        self._session = session
        self.take_over(session)

    def go_on(self) -> None:
        """Read on, if reading was stopped because the session had no room."""
        if self._is_held and not self._is_busy():
            self._release()

    def _is_busy(self) -> bool:
        return self._session is not None and self._session.is_busy and not self.close_sent

    def _release(self) -> None:
        self._is_held = False
        # Later, because the session is in the middle of a call.
        self.loop.call_soon(self.turns.begin, self._step)

    @override
    def _step(self) -> bool:
        if self._is_busy() and not self.transport.is_closing():
            # Input is pending, so nothing more is read until it is handled.
            self._is_held = True
            return False
        return super()._step()

    @override
    def tend(self, now_s: float, ping: bytes, *, interval_s: float, timeout_s: float) -> None:
        if self._is_held:
            # The pong may have arrived unread, because this side does not read.
            self.pinged_s, self.is_overdue = now_s, False
            return
        super().tend(now_s, ping, interval_s=interval_s, timeout_s=timeout_s)

    @override
    def finish(self, code: int, reason: str) -> None:
        super().finish(code, reason)
        # Read on for the client's answer to the close frame; what it sent before that is dropped.
        if self._is_held:
            self._release()

    @override
    def shutdown(self) -> None:
        """The server stops: answer what was taken, then say so."""
        if self._session is None or self.listener is None:
            super().shutdown()
        else:
            self._session.leave(GOING_AWAY)

    @override
    def _receive(self, text: str | None) -> None:
        # Without a turn for each message, so that all bids of a step are in one flush.
        self._deliver(text)
