"""One viewer's connection: frames go out at once while the viewer reads, else they wait in a bounded queue.

There is no task per viewer, and nothing is awaited: sending a frame to a thousand viewers is a loop of a thousand
writes to socket buffers, and a viewer whose buffer is full costs no more than one that reads.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Sequence
from typing import Protocol

from websockets.frames import Frame as WireFrame
from websockets.frames import Opcode

from broadcast_service.core.close_codes import INTERNAL_ERROR, SLOW_VIEWER, CloseCode
from broadcast_service.core.frames import Frame
from broadcast_service.core.outgoing import Outgoing, OutgoingLimits
from broadcast_service.metrics import Metrics

logger = logging.getLogger(__name__)


class Transport(Protocol):
    """The socket, as :mod:`shared.http.protocols.websockets` offers it. No method waits.

    When ``is_writable`` changes, it calls ``connection.on_full()`` (now False) or ``connection.on_writable()`` (now
    True).
    """

    @property
    def is_writable(self) -> bool:
        """Whether the socket's buffer has room; False once the viewer is gone."""

    @property
    def write(self) -> Callable[[bytes], object]:
        """Writes bytes to a writable socket, which takes all of them. Always the same function."""

    def finish(self, code: int, reason: str) -> None:
        """Send a close frame, and abort the connection if no answer comes in a few seconds."""


def wire_of(frame: Frame) -> bytes:
    """The frame as a WebSocket text message, made once and kept with the frame for all viewers."""
    if frame.wire is None:
        frame.wire = WireFrame(Opcode.TEXT, frame.text).serialize(mask=False)
    return frame.wire


class Connection:
    """A viewer, as the hub knows it.

    Args:
        single: the connection is for one item only and ends if that item does not exist.
        clock: any monotonic clock, in seconds.
        encode: encodes a frame for this viewer, and should keep the result with the frame, for other viewers; None for
            a WebSocket.

    Attributes:
        is_direct: whether the bytes of :func:`wire_of` may go to ``write`` at once: it is a WebSocket, its socket has
            room, and no frame waits.
        write: the socket's own function.
    """

    __slots__ = (
        "__weakref__",
        "_clock",
        "_encode",
        "_is_closing",
        "_limits",
        "_metrics",
        "_outgoing",
        "_transport",
        "client_id",
        "is_direct",
        "single",
        "write",
    )

    def __init__(
        self,
        transport: Transport,
        client_id: str,
        *,
        single: bool,
        limits: OutgoingLimits,
        metrics: Metrics,
        clock: Callable[[], float],
        encode: Callable[[Frame], bytes] | None = None,
    ) -> None:
        self.client_id = client_id
        self.single = single
        self.write = transport.write
        self._transport = transport
        self._encode = encode
        self._limits = limits
        # Made when a frame must wait for the first time: most viewers never need one.
        self._outgoing: Outgoing | None = None
        self._metrics = metrics
        self._clock = clock
        self._is_closing = False
        self.is_direct = encode is None and transport.is_writable

    @property
    def is_behind(self) -> bool:
        """Whether frames wait, or the viewer is being closed; it then gets no heartbeat."""
        return bool(self._outgoing) or self._is_closing or not self._transport.is_writable

    def send(self, frames: Sequence[Frame]) -> None:
        """Send frames now, or queue them; close a viewer that is too slow even for that.

        Never raises: a failure of one viewer must not affect the others.
        """
        if self._is_closing:
            return
        try:
            self._send(frames)
        except Exception:
            self.fail()

    def _send(self, frames: Sequence[Frame]) -> None:
        if not self._outgoing and self._transport.is_writable:
            encode = self._encode or wire_of
            self.write(encode(frames[0]) if len(frames) == 1 else b"".join(map(encode, frames)))
            self._metrics.frames_sent += len(frames)
            return
        if self._outgoing is None:
            self._outgoing = Outgoing(self._limits)
        self.is_direct = False
        self._metrics.frames_queued += len(frames)
        now_s = self._clock()
        for frame in frames:
            if not self._outgoing.push(frame, now_s):
                self.close(SLOW_VIEWER)
                return

    def refuse(self, error: Frame, code: CloseCode) -> None:
        """The item cannot be followed: send the error, and close a connection that was for this item alone."""
        self.send((error,))
        if self.single:
            self.close(code)

    def on_full(self) -> None:
        """The socket takes no more bytes, for now or for ever."""
        self.is_direct = False

    def on_writable(self) -> None:
        """The socket takes bytes again."""
        if self._is_closing:
            return
        encode = self._encode or wire_of
        # Frames are taken one by one: what still waits can still be conflated.
        while self._outgoing and self._transport.is_writable:
            self.write(encode(self._outgoing.pop(self._clock())))
            self._metrics.frames_sent += 1
        if not self._outgoing:
            self._outgoing = None
            self.is_direct = self._encode is None and self._transport.is_writable

    def fail(self) -> None:
        """Log the exception that is being handled, and close this viewer."""
        logger.exception("connection %s: sending failed", self.client_id)
        self.close(INTERNAL_ERROR)

    def close_if_stalled(self) -> None:
        """Close a viewer that takes nothing. Call it regularly: otherwise this is noticed only when a frame comes."""
        if self._outgoing is not None and self._outgoing.is_stalled(self._clock()):
            self.close(SLOW_VIEWER)

    def close(self, code: CloseCode) -> None:
        """Close the connection; frames that wait are dropped."""
        if self._is_closing:
            return
        self._is_closing = True
        self.is_direct = False
        self._outgoing = None
        self._metrics.connections_closed[code.name] += 1
        self._transport.finish(code.code, code.reason)


def send_to_all(frames: tuple[Frame, ...], viewers: Collection[Connection], metrics: Metrics) -> None:
    """Send the same frames to many viewers: the hot loop of the broadcaster."""
    data = wire_of(frames[0]) if len(frames) == 1 else b"".join(map(wire_of, frames))
    others = 0
    for viewer in viewers:
        if viewer.is_direct:
            try:
                viewer.write(data)
            except Exception:
                others += 1
                viewer.fail()
        else:
            others += 1
            viewer.send(frames)
    metrics.frames_sent += len(frames) * (len(viewers) - others)
