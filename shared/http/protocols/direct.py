"""Requests that are answered without ASGI: for the few endpoints that are called all the time.

Between a parsed request and an ASGI application, uvicorn makes a scope, an event and a task, and checks each header of
the answer. That costs more than many an answer does. Here a request of a chosen endpoint is handed to a plain function
as soon as it is complete, and its answer is one write.

Only plain requests come this way: HTTP/1.1, kept alive, with a Content-Length or no body, no header twice, alone on its
connection. All others of the same endpoint go to the ASGI application, which must answer them alike: those behind
another one that has no answer yet, in chunks, larger than the endpoint allows, or with ``Expect``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from http import HTTPStatus
from typing import Any, ClassVar, Final, NamedTuple

from typing_extensions import override
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from shared.http.connection_limits import ConnectionLimits
from shared.http.problems import INTERNAL_ERROR, INTERNAL_ERROR_DETAIL, MEDIA_TYPE, problem_body
from shared.http.protocols.bounded import BoundedHttpProtocol
from shared.http.protocols.websockets import DirectWebSocket

logger = logging.getLogger(__name__)

_NO_HEADERS: Final[Mapping[bytes, bytes]] = {}
AT_ONCE_MAX: Final = 16
"""Requests of one connection that are answered without ASGI before others have their turn."""

JSON: Final = b"content-type: application/json\r\n"
PROBLEM: Final = b"content-type: %b\r\n" % MEDIA_TYPE.encode()
_STATUS_LINES: Final = {
    status.value: b"HTTP/1.1 %d %b\r\n" % (status.value, status.phrase.encode()) for status in HTTPStatus
}


class Endpoint(NamedTuple):
    """What answers a request: ``answer`` is called with it when its body is complete, and calls
    :meth:`DirectRequest.answer` then or later. Bodies over ``body_bytes_max`` are left to the ASGI application.

    ``begin`` is called when the head is complete; it may answer already, with a refusal, and then the body is dropped
    as it comes and ``answer`` is not called.
    """

    answer: Callable[[DirectRequest], None]
    body_bytes_max: int
    begin: Callable[[DirectRequest], None] | None = None


Find = Callable[[bytes, bytes], Endpoint | None]
"""The endpoint for a method and a request target, as they were sent; None: the ASGI application answers."""


class _NobodyWaits:
    def set(self) -> None:
        """What uvicorn calls when there is news for the application."""


class DirectRequest:
    """One request. To its protocol it is what uvicorn's cycle of a request and its answer is."""

    __slots__ = (
        "_answer",
        "_began_in",
        "_protocol",
        "admitted",
        "body",
        "disconnected",
        "headers",
        "keep_alive",
        "more_body",
        "response_complete",
        "response_started",
        "target",
    )
    message_event: Final = _NobodyWaits()

    def __init__(self, protocol: DirectHttpProtocol, endpoint: Endpoint, headers: Mapping[bytes, bytes]) -> None:
        self._protocol = protocol
        self._answer = endpoint.answer
        self._began_in = protocol.reads
        self.target = protocol.url
        """The request target as it was sent."""
        self.headers = headers
        """Names in lower case, and values."""
        self.body = b""
        self.admitted: object = None
        """What :attr:`Endpoint.begin` has found out, for :attr:`Endpoint.answer`."""
        self.more_body = True
        self.keep_alive = True
        self.disconnected = False
        """Whether the client has gone. Its answer is dropped."""
        self.response_started = False
        self.response_complete = False

    @property
    def state(self) -> Mapping[str, Any]:
        """What the application's lifespan has opened."""
        return self._protocol.app_state

    @property
    def peer(self) -> str | None:
        """The address of the other end of the connection; None where it has none."""
        client = self._protocol.client
        return client[0] if client else None

    @property
    def is_gone(self) -> bool:
        """Whether nobody waits for the answer any more. If other requests came behind this one on the connection, they
        are told of its end, and not this one."""
        return self.disconnected or self._protocol.transport.is_closing()

    @property
    def is_late(self) -> bool:
        """Whether its body ends in another read than its head: what :attr:`Endpoint.begin` has found may be old."""
        return self._protocol.reads != self._began_in

    def complete(self) -> None:
        """Hand it to its endpoint."""
        self.more_body = False
        self.call(self._answer)

    def call(self, step: Callable[[DirectRequest], None]) -> None:
        """Call this step with the request; if it raises, answer that something went wrong."""
        try:
            step(self)
        except Exception:
            logger.exception("%s", self.target)
            self.fail()

    def fail(self) -> None:
        """Answer that something went wrong."""
        self.answer(500, PROBLEM, problem_body(500, INTERNAL_ERROR, INTERNAL_ERROR_DETAIL))

    def answer(self, status: int, headers: bytes, body: bytes) -> None:
        """Send the answer; once. ``headers``: lines that end with CR LF, without Date and Content-Length."""
        if self.disconnected or self.response_complete:
            return
        self.response_started = self.response_complete = True
        protocol = self._protocol
        close = b"" if self.keep_alive else b"connection: close\r\n"
        protocol.transport.write(
            b"%b%b%b%bcontent-length: %d\r\n\r\n%b"
            % (_STATUS_LINES[status], protocol.default_lines(), headers, close, len(body), body)
        )
        # The protocol keeps this object until the next request comes, so free what is large.
        self.body, self.headers = b"", _NO_HEADERS
        if not self.keep_alive:
            protocol.transport.close()
        protocol.on_response_complete()


class DirectHttpProtocol(BoundedHttpProtocol):
    """The bounded protocol, with endpoints that are answered without ASGI."""

    find: ClassVar[Find]
    left_headers: ClassVar[frozenset[bytes]] = frozenset()
    """Requests with one of these headers, in lower case, are left to the ASGI application."""
    # The headers of every answer as uvicorn lists them, and as lines. The server makes a new list each second.
    _listed: ClassVar[list[tuple[bytes, bytes]]] = []
    _lines: ClassVar[bytes] = b""
    # How many requests were handed to their endpoints in the read that is counted here.
    _handed = _handed_in_read = 0
    # The host of the last request, which was checked already.
    _host: ClassVar[bytes | None] = None

    def default_lines(self) -> bytes:
        """The headers that every answer has, as lines."""
        listed = self.server_state.default_headers
        cls = type(self)
        if listed is not cls._listed:
            cls._listed, cls._lines = listed, b"".join(b"%b: %b\r\n" % header for header in listed)
        return cls._lines

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        # A request may wait for its answer for longer than its connection lasts, and these do not count as connections.
        self.headers = []
        cycle: object = self.cycle
        if isinstance(cycle, DirectRequest):
            cycle.body, cycle.headers = b"", _NO_HEADERS
        # A circle of references would keep the connection and its last request until the garbage is collected.
        self.cycle = None  # type: ignore[assignment]

    @override
    def handle_websocket_upgrade(self) -> None:
        super().handle_websocket_upgrade()
        # The connection belongs to another protocol now, and still counts for its address.
        protocol = self.transport.get_protocol()
        if isinstance(protocol, DirectWebSocket):
            protocol.on_lost = self.uncount
        elif protocol is not self:
            self.uncount()

    @override
    def on_message_begin(self) -> None:
        # uvicorn makes the scope here. Most requests need none.
        self.begin_head()
        self.url, self.headers, self.expect_100_continue = b"", [], False

    @override
    def on_headers_complete(self) -> None:
        endpoint = self._endpoint()
        if endpoint is not None:
            named = dict(self.headers)
            if len(named) == len(self.headers) and self._is_plain(named, endpoint.body_bytes_max):
                self._take(endpoint, named)
                return
        url, headers, expects = self.url, self.headers, self.expect_100_continue
        HttpToolsProtocol.on_message_begin(self)
        self.url, self.expect_100_continue = url, expects
        self.headers += headers  # the list that the scope has
        super().on_headers_complete()

    def _take(self, endpoint: Endpoint, headers: Mapping[bytes, bytes]) -> None:
        host = headers.get(b"host")
        if host is None or host != self._host:
            self.check_head()
            type(self)._host = host
        self._handed += 1
        request = DirectRequest(self, endpoint, headers)
        self.cycle = request  # type: ignore[assignment]
        self.begin_body()
        if endpoint.begin is not None:
            request.call(endpoint.begin)

    def _endpoint(self) -> Endpoint | None:
        if self.cycle is not None and not self.cycle.response_complete:
            return None
        if self._handed_in_read != self.reads:
            self._handed, self._handed_in_read = 0, self.reads
        elif self._handed >= AT_ONCE_MAX:
            # Answers that come at once leave nothing waiting, so no other bound limits how many requests of one read
            # are answered here. Requests for the application wait for it, and only few may wait.
            return None
        return type(self).find(self.parser.get_method(), self.url)

    def _is_plain(self, headers: Mapping[bytes, bytes], body_bytes_max: int) -> bool:
        if (
            b"transfer-encoding" in headers
            or self.expect_100_continue
            or self.flow.write_paused
            or not self.parser.should_keep_alive()
            or not self.left_headers.isdisjoint(headers)
        ):
            return False
        # Without these headers, a connection that is kept speaks HTTP/1.1 and goes on to. The parser treats both
        # headers as one.
        if (b"connection" in headers or b"proxy-connection" in headers) and (
            self.parser.should_upgrade() or self.parser.get_http_version() != "1.1"
        ):
            return False
        length = headers.get(b"content-length")
        # The parser has seen that these are digits.
        return length is None or (len(length) <= 9 and int(length) <= body_bytes_max)

    @override
    def on_body(self, body: bytes) -> None:
        cycle: object = self.cycle
        if isinstance(cycle, DirectRequest) and not cycle.response_complete:
            cycle.body += body
        else:
            super().on_body(body)

    @override
    def on_message_complete(self) -> None:
        cycle: object = self.cycle
        if isinstance(cycle, DirectRequest) and not cycle.response_complete and self._plain_head is None:
            self.end_body()
            cycle.complete()
        else:
            super().on_message_complete()


def direct_protocol(
    find: Find,
    *,
    head_bytes_max: int,
    timeout_s: float,
    answers_silence: bool = False,
    connection_limits: ConnectionLimits | None = None,
    left_headers: Collection[bytes] = (),
    patient_targets: Collection[bytes] = (),
    patient_s: float = BoundedHttpProtocol.patient_s,
) -> type[DirectHttpProtocol]:
    """The protocol for ``uvicorn.Config(http=...)`` with these settings."""
    settings = {
        "find": staticmethod(find),
        "head_bytes_max": head_bytes_max,
        "timeout_s": timeout_s,
        "answers_silence": answers_silence,
        "connection_limits": connection_limits,
        "left_headers": frozenset(left_headers),
        "patient_targets": frozenset(patient_targets),
        "patient_s": patient_s,
    }
    return type("ConfiguredDirectProtocol", (DirectHttpProtocol,), settings)
