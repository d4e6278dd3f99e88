"""uvicorn's HTTP protocol, with bounds on the connections themselves.

It bounds how many connections there are, and how long an answer waits for a client that does not read it: uvicorn keeps
the answer for as long as the connection stays. The feed closes viewers that do not read; this class does the same for
answers.
"""

from __future__ import annotations

import logging
from collections import Counter
from http import HTTPStatus
from typing import Any, ClassVar, Final

from typing_extensions import override
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from shared.http.addresses import counted_as
from shared.http.connection_limits import TURNED_AWAY_MAX, ConnectionLimits
from shared.http.problems import MEDIA_TYPE, problem_body
from shared.http.watch import Watch
from shared.pacing.seldom import Seldom

_not_read: Final = Seldom(logging.getLogger(__name__))

UNREAD_MAX: Final = 100
"""Connections whose answers wait because their clients do not read. Each has up to about 100 KB in its buffer."""
_TURNED_AWAY_S: Final = 1.0


class CountedHttpProtocol(HttpToolsProtocol):
    """One connection. Where ``connection_limits`` have no room it gets a refusal and is closed. If it does not take its
    answer within ``answer_s`` it is cut off. ``UNREAD_MAX`` connections may have answers that are not taken; where
    there is one more, the address that has most of them loses its oldest."""

    connection_limits: ClassVar[ConnectionLimits | None] = None
    """Counts the connections; None: they are not counted."""
    answer_s: ClassVar[float] = 30.0
    """How long a client may take for what is larger than the buffers: 64 KB here, and the kernel's."""

    _unread: ClassVar[Watch[CountedHttpProtocol] | None] = None
    # The argument for the limits' ``leave`` when this connection ends; None: it has not been counted.
    _counted: str | None = None
    _is_turned_away = False
    # False where a stream is written, which has limits of its own.
    _has_answers = True

    @override
    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        cls = type(self)
        # Of this class alone: a subclass may have another time-out.
        unread = cls.__dict__.get("_unread")
        if unread is None or unread.loop is not self.loop:
            cls._unread = Watch(self.loop, self.answer_s, CountedHttpProtocol._is_unread)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self.uncount()
        if self._unread is not None:
            self._unread.end(self)
        super().connection_lost(exc)

    # --------------------------------------------------------------------------------------------- connections

    def may_stay(self) -> bool:
        """Count this connection. False: it was told that there is no room, and is being closed."""
        peer = self.transport.get_extra_info("peername")
        if self.connection_limits is None or not isinstance(peer, tuple):
            return True
        entered = self.connection_limits.enter(peer[0])
        if isinstance(entered, str):
            self._counted = entered
            return True
        if self.connection_limits.turned_away >= TURNED_AWAY_MAX:
            self.transport.abort()
            return False
        self.connection_limits.turned_away += 1
        self._is_turned_away = True
        self.write_problem(*entered, "retry-after: 5\r\n")
        # Closed with its request unread the client would be reset, and might lose the answer over it.
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.loop.call_later(_TURNED_AWAY_S, self.transport.abort)
        return False

    def uncount(self) -> None:
        """Stop counting this connection."""
        counted, self._counted = self._counted, None
        if self.connection_limits is None:
            return
        if counted is not None:
            self.connection_limits.leave(counted)
        if self._is_turned_away:
            self._is_turned_away = False
            self.connection_limits.turned_away -= 1

    # ------------------------------------------------------------------------------------------ unread answers

    @override
    def pause_writing(self) -> None:
        super().pause_writing()
        self.must_be_read()

    @override
    def resume_writing(self) -> None:
        super().resume_writing()
        if self._unread is not None and not self.transport.is_closing():
            self._unread.end(self)

    def must_be_read(self) -> None:
        """From now on the client has ``answer_s`` to take what is in the buffer."""
        unread = self._unread
        if unread is None or not self._has_answers or self in unread:
            return
        unread.begin(self)
        if len(unread) > UNREAD_MAX:
            # The address that holds most loses one: otherwise an address with ``UNREAD_MAX`` of them would cut off all
            # others.
            held = Counter(each._address for each in unread)
            most = max(held.values())
            paying = next(each for each in unread if held[each._address] == most)
            unread.end(paying)
            paying._is_unread()

    @property
    def _address(self) -> str:
        """The address as connections are counted; all connections through proxies of the operator count as one."""
        if self._counted:
            return self._counted
        peer = self.transport.get_extra_info("peername")
        return counted_as(peer[0]) if isinstance(peer, tuple) else ""

    def _is_unread(self) -> None:
        _not_read.warning("an answer was not read in time: the connection is cut off")
        self.transport.abort()

    def leave_answers(self) -> None:
        """What is written from now on is a stream, whose limits are its own."""
        self._has_answers = False
        if self._unread is not None:
            self._unread.end(self)

    @override
    def on_response_complete(self) -> None:
        """What uvicorn does, without its timer for each answer: that costs as much as half of all the rest here."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            # Closing waits until its last answer is taken: for ever, if the client does not read.
            self.must_be_read()
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())
        else:
            self.await_request()

    def await_request(self) -> None:
        """No answer is due: from now on the connection is idle."""
        raise NotImplementedError

    def write_problem(self, status: int, code: str, detail: str, headers: str = "") -> None:
        """An answer of the protocol itself, after which the connection is closed. ``headers``: whole lines."""
        body = problem_body(status, code, detail)
        head = (
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\ncontent-type: {MEDIA_TYPE}\r\n{headers}"
            f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
        )
        self.transport.write(head.encode() + body)
