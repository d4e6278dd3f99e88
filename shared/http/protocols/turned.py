"""uvicorn's HTTP protocol, with the work of parsing shared out: a client that sends much does not hold up the others.

uvicorn parses all that a read brings, which may be a quarter of a megabyte from each of many connections, or thousands
of small requests, before anybody else has a turn. Here a read is parsed in slices, and what is longer than one slice in
turns that all connections share (:mod:`shared.pacing.turns`). Meanwhile nothing more of the connection is read. While
many requests of it wait for their answers nothing more is parsed either.

What still arrives of a request that has its answer, a refused upload say, is parsed too, to find where the next request
begins. If it is long the connection is not worth that: then the rest is dropped as it comes, and the connection closed.
"""

from __future__ import annotations

from typing import Any, ClassVar, Final

from typing_extensions import override
from uvicorn.protocols.http.flow_control import FlowControl

from shared.http.protocols.counted import CountedHttpProtocol
from shared.pacing.turns import Turns

SLICE_BYTES: Final = 1_024
_STEP_BYTES: Final = 4 * SLICE_BYTES
"""What is parsed of a connection before it is the turn of the next one: half a millisecond where it is all trailers."""
WAITING_MAX: Final = 16
"""Requests of a connection that wait for their answers."""


class Flow(FlowControl):
    """Reading is paused where uvicorn asks for that, and also while this is held."""

    is_held = False
    _is_full = False

    @override
    def pause_reading(self) -> None:
        self._is_full = True
        super().pause_reading()

    @override
    def resume_reading(self) -> None:
        self._is_full = False
        if not self.is_held:
            super().resume_reading()

    def hold(self) -> None:
        """Read nothing until :meth:`release`, even where uvicorn resumes reading."""
        self.is_held = True
        super().pause_reading()

    def release(self) -> None:
        """Read again, unless uvicorn waits for the application to take what there is."""
        self.is_held = False
        if not self._is_full:
            super().resume_reading()


class TurnedHttpProtocol(CountedHttpProtocol):
    """One connection. Subclasses parse a slice, and say what is to be done when all that came is parsed."""

    turns: ClassVar[Turns] = Turns()
    """The turns that all connections share."""

    # What was read and is not parsed yet, from this place on.
    _unparsed = b""
    _parsed = 0
    # Whether nothing is parsed before some of the requests are answered.
    _is_waiting = False
    # Nothing more of this connection is parsed.
    is_deaf = False
    # How often something was parsed; between two times others had their turn.
    reads = 0

    def parse_slice(self, data: bytes) -> None:
        """Parse at most ``SLICE_BYTES``."""
        raise NotImplementedError

    def all_is_parsed(self) -> None:
        """What came is parsed, or as much as may be for now (``is_waiting``)."""
        raise NotImplementedError

    def unwatch(self) -> None:
        """Stop the time that this client has to send something."""
        raise NotImplementedError

    @property
    def is_waiting(self) -> bool:
        """Whether as many requests wait for their answers as may, so that nothing more is read."""
        return self._is_waiting

    @override
    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.flow = self._flow = Flow(transport)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        # First, because what the base class calls may read it. The parser is gone afterwards, and a turn may still be
        # due.
        self.is_deaf = True
        super().connection_lost(exc)
        self._drop_unparsed()

    @override
    def data_received(self, data: bytes) -> None:
        if self.is_deaf:
            return
        if self._flow.is_held:
            self._unparsed += data  # it was on its way when reading was paused
            return
        self._unset_keepalive_if_required()
        if len(data) <= SLICE_BYTES:
            self.reads += 1
            self.parse_slice(data)
            self._end_of_read()
        else:
            self._unparsed = data
            self._flow.hold()
            self.turns.begin(self._parse_some)

    def _parse_some(self) -> bool:
        """A step of the turns. Returns whether there is more to do."""
        self.reads += 1
        data = self._unparsed
        until = min(len(data), self._parsed + _STEP_BYTES)
        while self._parsed < until and not self._is_over() and len(self.pipeline) < WAITING_MAX:
            start, self._parsed = self._parsed, self._parsed + SLICE_BYTES
            self.parse_slice(data[start : start + SLICE_BYTES])
        if not self._is_over() and len(self.pipeline) < WAITING_MAX and self._parsed < len(self._unparsed):
            return True
        self._end_of_read()
        return False

    def _is_over(self) -> bool:
        return self.is_deaf or bool(self.transport.is_closing())

    def _end_of_read(self) -> None:
        if self._is_over():
            self._drop_unparsed()
            return
        if len(self.pipeline) >= WAITING_MAX:
            # The client is not slow while the server does not read.
            self._is_waiting = True
            self.unwatch()
            self._flow.hold()
        elif self._flow.is_held:
            self._drop_unparsed()
            self._flow.release()
        self.all_is_parsed()

    @override
    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._is_waiting and len(self.pipeline) < WAITING_MAX // 2:
            # Later, because the application is in the middle of a call.
            self.loop.call_soon(self._go_on)

    def _go_on(self) -> None:
        if self._is_waiting and not self._is_over():
            self._is_waiting = False
            self.turns.begin(self._parse_some)

    def stop_parsing(self) -> None:
        """Drop what comes and what waits. It is read all the same, so that the connection's end is noticed."""
        self.unwatch()
        self.listen_no_more()

    def listen_no_more(self) -> None:
        """As :meth:`stop_parsing`, but the time goes on in which the client has to finish."""
        self.is_deaf = True
        self._is_waiting = False
        self._drop_unparsed()
        self._flow.is_held = False
        self._flow.resume_reading()

    def _drop_unparsed(self) -> None:
        self._unparsed, self._parsed = b"", 0
