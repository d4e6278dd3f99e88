"""uvicorn's HTTP protocol, with bounds on how a request arrives and on how long a connection may be idle.

Under httptools uvicorn bounds neither the size of the request line and headers nor the time in which they and the body
arrive. A client that never ends them would hold a connection, and memory, for ever. The application bounds the size of
bodies; this class bounds their time. One look a second at the connections whose request is incomplete costs less than a
timer for each request.

uvicorn begins the keep-alive time-out only after an answer, and ends it with the first byte that comes: also with one
that begins no request, such as a line break after a body (RFC 9112, section 2.2) or the rest of a body that was refused
early. If the client then vanished, the connection would stay for ever, and so would one that never sent a request. Here
such a connection is closed after ``timeout_keep_alive`` without an answer due.

:mod:`shared.http.protocols.turned` shares out the work of parsing among the turns of the loop.
"""

from __future__ import annotations

import logging
import re
from typing import Any, ClassVar, Final

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from typing_extensions import override

from shared.http.connection_limits import ConnectionLimits
from shared.http.protocols.turned import TurnedHttpProtocol
from shared.http.watch import Watch
from shared.pacing.seldom import Seldom

_no_request: Final = Seldom(logging.getLogger(__name__))

DROPPED_MAX: Final = 256 * 1024
"""Bytes of a body that are parsed and dropped after its request was answered."""
# Name or address, and port; RFC 3986 allows more signs in a name, which no host has.
_HOST: Final = re.compile(rb"[A-Za-z0-9._~%-]*(:\d*)?|\[[0-9A-Fa-f:.]+\](:\d*)?")

# Which part of a request is arriving.
_NOTHING: Final = 0
_HEAD: Final = 1
_BODY: Final = 2


class _Refused(Exception):
    """The request that is arriving gets this answer. Raised inside callbacks of the parser."""

    def __init__(self, status: int, code: str, detail: str) -> None:
        self.answer = status, code, detail


class BoundedHttpProtocol(TurnedHttpProtocol):
    """One connection. It answers 431 to a head over ``head_bytes_max``, or to trailers over that; 408 to a head, or
    then a body, that takes longer than ``timeout_s`` (and up to a second more); 501 to a transfer coding other than
    chunked; 400 to what is not HTTP/1.1. Then it is closed.

    The head may be larger by one slice of parsing, 1 KiB. Of a connection's requests 16 may wait for the one that is
    being answered, and further ones of the same slice. The others wait in the client, and in one read of the socket.

    Trailers are read and dropped. A receiver may do so (RFC 9110, section 6.5.1); among the headers they would be
    fields that nobody in front has checked.
    """

    head_bytes_max: ClassVar[int] = 16 * 1024
    timeout_s: ClassVar[float] = 10.0
    patient_targets: ClassVar[frozenset[bytes]] = frozenset()
    """Request targets, as they are sent, whose bodies may take ``patient_s``: uploads."""
    patient_s: ClassVar[float] = 60.0
    answers_silence: ClassVar[bool] = False
    """Whether a client that has sent nothing gets a 408. Browsers open connections in advance: to them it would be the
    answer to a request that they send just then."""

    _watch: ClassVar[Watch[BoundedHttpProtocol] | None] = None
    # Connections to which no answer is due.
    _idle: ClassVar[Watch[BoundedHttpProtocol]]
    _patient_watch: ClassVar[Watch[BoundedHttpProtocol] | None] = None
    _arriving = _HEAD
    # Bytes of the complete fields of the head or of the trailers, and bytes of the field that is still open behind
    # them.
    _head_bytes = 0
    _open_bytes = 0
    # Whether a line of the head or of the trailers ended in this slice.
    _is_line_over = False
    # Since the last chunk's size, which may be 0, nothing of the chunk has come.
    _may_be_trailer = False
    # Whether the head or body that is arriving began in this read.
    _is_new = False
    _watched_by: Watch[BoundedHttpProtocol] | None = None
    # The head of a request that asks for another protocol, without that wish; it is read again, with what follows it.
    _plain_head: bytes | None = None
    # Bytes of a body that came after its request was answered.
    _dropped_bytes = 0

    @override
    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        cls = type(self)
        # Of this class alone: a subclass may have another time-out.
        watch = cls.__dict__.get("_watch")
        if watch is None or watch.loop is not self.loop:
            cls._watch = Watch(self.loop, self.timeout_s, BoundedHttpProtocol._is_slow)
            cls._idle = Watch(self.loop, self.timeout_keep_alive, BoundedHttpProtocol.timeout_keep_alive_handler)
            cls._patient_watch = Watch(self.loop, self.patient_s, BoundedHttpProtocol._is_slow)
        if self.may_stay():
            self._watch_anew()
            self.await_request()
        else:
            self.is_deaf = True

    def _is_slow(self) -> None:
        self._watched_by = None
        self.refuse_slow()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self.unwatch()
        super().connection_lost(exc)
        # After a reset, uvicorn's time-out would keep all of this in memory.
        self._unset_keepalive_if_required()
        self.pipeline.clear()

    @override
    def all_is_parsed(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            # Another answer of the same read may have begun the time-out.
            self._unset_keepalive_if_required()
        else:
            self.await_request()
        if self._arriving == _NOTHING:
            self.unwatch()
        elif not self.is_waiting and (self._is_new or self._watched_by is None):
            self._watch_anew()
        self._is_new = False

    @override
    def parse_slice(self, data: bytes) -> None:
        """Parse, and bound what stays in memory (heads and trailers) and what is parsed for nothing."""
        self._is_line_over = False
        self._parse(data)
        if self._arriving == _HEAD or (self._arriving == _BODY and self._may_be_trailer):
            self._open_bytes = len(data) - 1 - data.rfind(b"\n") if self._is_line_over else self._open_bytes + len(data)
            if self._head_bytes + self._open_bytes > self.head_bytes_max:
                self._refuse(*self._too_large().answer)
        if self._dropped_bytes > DROPPED_MAX and not self.is_deaf:
            # If both directions were closed, a client that still sends would get a reset and might lose the answer. Its
            # time is watched as before.
            self.listen_no_more()
            if self.transport.can_write_eof():
                self.transport.write_eof()

    def _parse(self, data: bytes) -> None:
        """Feed the parser, as uvicorn does, but lose no body of a request that asks for a protocol nobody speaks here.

        Clients in Java ask for h2c with their first request. The parser takes that for the last one of HTTP/1.1, and
        what follows its head for the other protocol's. A server may ignore the wish (RFC 9110, section 7.8): the
        request is read again without it.
        """
        try:
            while data:
                try:
                    self.parser.feed_data(data)
                    return
                except HttpParserUpgrade as stop:
                    if self._plain_head is None:
                        if self._should_upgrade():
                            self.stop_parsing()
                            self.handle_websocket_upgrade()
                        return
                    data = self._plain_head + data[stop.args[0] :]
                    self._plain_head = None
                    self.parser = HttpRequestParser(self)
                    self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        except HttpParserError as error:
            if isinstance(error.__context__, _Refused):
                self._refuse(*error.__context__.answer)
            else:
                _no_request.warning("not a request of HTTP/1.1")
                self.send_400_response("")

    @override
    def on_message_begin(self) -> None:
        self.begin_head()
        super().on_message_begin()

    @override
    def _should_upgrade(self) -> bool:
        """Not while an answer is due: the WebSocket would have the connection, and the answer would wait for room in it
        for ever. Such a wish is ignored like that for any other protocol."""
        is_answering = bool(self.pipeline) or (self.cycle is not None and not self.cycle.response_complete)
        return super()._should_upgrade() and not is_answering

    def begin_head(self) -> None:
        """A request begins to arrive."""
        self._arriving, self._head_bytes, self._is_new, self._is_line_over = _HEAD, 0, True, True

    @override
    def on_header(self, name: bytes, value: bytes) -> None:
        self._is_line_over = True
        is_head = self._arriving == _HEAD
        if is_head and not self.headers:
            self._head_bytes = len(self.url)
        # A colon and a line break, and a blank before the value.
        self._head_bytes += len(name) + len(value) + 4
        if self._head_bytes > self.head_bytes_max:
            raise self._too_large()
        if is_head:
            # A copy of what uvicorn does here: this runs for each header, and calling uvicorn's method would double its
            # cost.
            name = name.lower()
            if name == b"expect" and value.lower() == b"100-continue":
                self.expect_100_continue = True
            self.headers.append((name, value))

    def on_chunk_header(self) -> None:
        """Called by the parser: the size of a chunk has come. Behind that of the last one come the trailers."""
        self._may_be_trailer = self._is_line_over = True

    @override
    def on_body(self, body: bytes) -> None:
        self._may_be_trailer = False
        if self.cycle.response_complete:
            self._dropped_bytes += len(body)
        super().on_body(body)

    @override
    def on_headers_complete(self) -> None:
        self.check_head()
        if self.parser.should_upgrade() and not self._should_upgrade() and self._asks_for_upgrade():
            version = self.parser.get_http_version().encode()
            lines = [b"%s %s HTTP/%s" % (self.parser.get_method(), self.url, version)]
            lines += [b"%s: %s" % header for header in self.headers if header[0] != b"upgrade"]
            self._plain_head = b"\r\n".join((*lines, b"", b""))
            return
        super().on_headers_complete()
        # Only now: uvicorn may have refused the URL, and then the body that is arriving is not this request's.
        self.begin_body()

    def begin_body(self) -> None:
        """The head is complete and is taken."""
        self._arriving, self._head_bytes, self._is_new, self._may_be_trailer = _BODY, 0, True, False
        self._dropped_bytes = 0

    def end_body(self) -> None:
        """The request is complete."""
        self._arriving = _NOTHING

    def _asks_for_upgrade(self) -> bool:
        return any(name == b"upgrade" for name, _ in self.headers)

    def check_head(self) -> None:
        """Check that there is exactly one Host, and that it is a host (RFC 9112, section 3.2); HTTP/1.0 may leave it
        out. Check that there is no transfer coding, or chunked alone (section 6.1); the parser looks at the last one
        only.

        Raises:
            ValueError: not one host; the parser turns this into a refusal.
            _Refused: there is another coding.
        """
        hosts, codings = [], []
        for name, value in self.headers:
            if name == b"host":
                hosts.append(value)
            elif name == b"transfer-encoding":
                codings.append(value)
        if len(hosts) > 1 or (hosts and _HOST.fullmatch(hosts[0]) is None):
            raise ValueError("not one host")
        if not hosts and self.parser.get_http_version() == "1.1":
            raise ValueError("no host")
        if codings:
            named = [coding for coding in (part.strip().lower() for part in b",".join(codings).split(b",")) if coding]
            if named != [b"chunked"]:
                raise _Refused(501, "NOT_IMPLEMENTED", "the only transfer coding that is read is chunked")

    @override
    def on_message_complete(self) -> None:
        if self._plain_head is not None:
            return
        self.end_body()
        super().on_message_complete()

    @override
    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        # A closing transport waits until its last answer is taken: for ever, if the client does not read.
        self.loop.call_later(self.timeout_keep_alive, self.transport.abort)

    @override
    def await_request(self) -> None:
        # The connection is among these unless it is lost or has become a WebSocket.
        if self in self.connections and not self.transport.is_closing():
            self._idle.begin(self)

    @override
    def _unset_keepalive_if_required(self) -> None:
        self._idle.end(self)

    # ------------------------------------------------------------------------------------------------- refusals

    def _watch_anew(self) -> None:
        self.unwatch()
        is_patient = self._arriving == _BODY and self.url in self.patient_targets
        self._watched_by = self._patient_watch if is_patient else self._watch
        assert self._watched_by is not None
        self._watched_by.begin(self)

    @override
    def unwatch(self) -> None:
        """Stop waiting for a request. Between two requests the keep-alive time-out applies."""
        if self._watched_by is not None:
            self._watched_by.end(self)
            self._watched_by = None

    @override
    def send_400_response(self, msg: str) -> None:
        self._refuse(400, "BAD_REQUEST", "this is not a request of HTTP/1.1")

    def refuse_slow(self) -> None:
        """Refuse what is arriving: its time is over."""
        if self._arriving == _BODY:
            self._refuse(408, "BODY_TOO_SLOW", "the request body did not arrive in time")
        elif self._head_bytes or self._open_bytes or self.answers_silence:
            self._refuse(408, "HEAD_TOO_SLOW", "the request line and headers did not arrive in time")
        else:
            self.transport.close()

    def _too_large(self) -> _Refused:
        what = "trailers" if self._arriving == _BODY else "request line and headers"
        return _Refused(431, "HEAD_TOO_LARGE", f"the {what} may have {self.head_bytes_max} bytes")

    def _refuse(self, status: int, code: str, detail: str) -> None:
        """Answer what is arriving, and close. Where another answer is due or under way, close after that one; where
        what is arriving is the rest of a request that was answered, just close."""
        if self.transport.is_closing():
            self.unwatch()
            return
        self.stop_parsing()
        if self._owes_an_answer():
            self.cycle.keep_alive = False
            return
        if self._arriving == _BODY and self.cycle.response_complete:
            self.transport.close()
            return
        self.write_problem(status, code, detail)
        self.transport.close()
        self.must_be_read()

    def _owes_an_answer(self) -> bool:
        if self.cycle is None or self.cycle.response_complete:
            return False
        # While a body arrives, the cycle is that of its request, unless other requests are before it.
        return self._arriving != _BODY or self.cycle.response_started or bool(self.pipeline)


def bounded_protocol(
    *,
    head_bytes_max: int,
    timeout_s: float,
    answers_silence: bool = False,
    connection_limits: ConnectionLimits | None = None,
) -> type[BoundedHttpProtocol]:
    """The protocol for ``uvicorn.Config(http=...)`` with these settings."""
    settings = {
        "head_bytes_max": head_bytes_max,
        "timeout_s": timeout_s,
        "answers_silence": answers_silence,
        "connection_limits": connection_limits,
    }
    return type("ConfiguredHttpProtocol", (BoundedHttpProtocol,), settings)
