"""One viewer's connection: frames go out at once while it reads, and wait in a bounded queue while it does not.

There is no task per viewer and nothing is awaited here: handing a frame to a thousand viewers is a loop over a thousand
writes to socket buffers, and a viewer whose buffer is full costs no more than one that reads.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from websockets.frames import Frame as WireFrame
from websockets.frames import Opcode

from broadcast_service.close_codes import SLOW_VIEWER, CloseCode
from broadcast_service.frames import Frame
from broadcast_service.metrics import Metrics
from broadcast_service.outgoing import Outgoing, OutgoingLimits


class Transport(Protocol):
    """The socket below, as :class:`~broadcast_service.transport.FeedProtocol` offers it. No method waits."""

    @property
    def is_writable(self) -> bool:
        """Whether the socket's buffer has room; never where the viewer is gone."""

    def write(self, data: bytes) -> None:
        """Hand bytes to a socket that is writable; all of them are taken."""

    def finish(self, code: int, reason: str) -> None:
        """Say goodbye with a close frame, and cut the connection if it is not answered in a few seconds."""


class Connection:
    """A viewer, as the hub knows it.

    Args:
        single: the connection is for one item only and ends where that item does not exist.
        clock: any monotonic clock, in seconds.
    """

    __slots__ = (
        "__weakref__",
        "_clock",
        "_is_closing",
        "_metrics",
        "_outgoing",
        "_transport",
        "client_id",
        "single",
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
    ) -> None:
        self.client_id = client_id
        self.single = single
        self._transport = transport
        self._outgoing = Outgoing(limits)
        self._metrics = metrics
        self._clock = clock
        self._is_closing = False

    def send(self, frames: Sequence[Frame]) -> None:
        """Send frames now, or let them wait for the viewer; close a viewer that is too slow even for that."""
        if self._is_closing:
            return
        if not self._outgoing and self._transport.is_writable:
            self._transport.write(wire_of(frames[0]) if len(frames) == 1 else b"".join(map(wire_of, frames)))
            self._metrics.frames_sent += len(frames)
            return
        self._metrics.frames_queued += len(frames)
        now_s = self._clock()
        for frame in frames:
            if not self._outgoing.push(frame, now_s):
                self.close(SLOW_VIEWER)
                return

    def refuse(self, error: Frame, code: CloseCode) -> None:
        """An item that cannot be followed: an error among many items, the end of a connection that was for it alone."""
        self.send((error,))
        if self.single:
            self.close(code)

    def on_writable(self) -> None:
        """The socket takes bytes again."""
        # Taken from the queue one by one: what still waits can still be conflated.
        while self._outgoing and self._transport.is_writable:
            self._transport.write(wire_of(self._outgoing.pop(self._clock())))
            self._metrics.frames_sent += 1

    def close_if_stalled(self) -> None:
        """To be called now and then: a viewer that takes nothing is noticed also when no frame comes."""
        if self._outgoing.is_stalled(self._clock()):
            self.close(SLOW_VIEWER)

    def close(self, code: CloseCode) -> None:
        """End the connection; frames that wait are dropped."""
        if self._is_closing:
            return
        self._is_closing = True
        self._outgoing.clear()
        self._metrics.connections_closed[code.name] += 1
        self._transport.finish(code.code, code.reason)


def wire_of(frame: Frame) -> bytes:
    """The frame as a WebSocket text message, made on first use and kept with the frame for all other viewers."""
    if frame.wire is None:
        frame.wire = WireFrame(Opcode.TEXT, frame.text).serialize(mask=False)
    return frame.wire
