"""uvicorn's HTTP protocol, with bounds on how a request arrives.

uvicorn bounds neither the size of the request line and headers under httptools nor the time in which they and the body
arrive, so a client that never ends them holds a connection, and memory, for ever. The size of bodies is bounded by the
application; their time here, since one look a second at all connections costs less than a timer for each request.
"""

from __future__ import annotations

import asyncio
import re
from http import HTTPStatus
from typing import Any

from httptools import HttpParserError, HttpParserUpgrade, HttpRequestParser
from typing_extensions import override

from api_gateway.problems import MEDIA_TYPE, problem
from shared.http.protocol import IdleHttpProtocol

_SWEEP_S = 1.0
# Name or address, and port; RFC 3986 allows more signs in a name, which no host has.
_HOST = re.compile(rb"[A-Za-z0-9._~%-]*(:\d*)?|\[[0-9A-Fa-f:.]+\](:\d*)?")
# What ``_head_bytes`` is while no head is arriving.
_IN_BODY = -1
_COMPLETE = -2


def bounded_protocol(*, head_bytes_max: int, timeout_s: float) -> type[IdleHttpProtocol]:
    """A protocol class that answers 431 to a head over ``head_bytes_max``, and 408 to a head, or then a body, that
    takes longer than ``timeout_s``.

    The size counts from the head's second chunk on: a first chunk is at most one read of the socket (64 KiB).
    """

    class BoundedHttpProtocol(IdleHttpProtocol):
        """One connection. ``_head_bytes`` counts while a head is incomplete, and is negative otherwise; ``_since_s`` is
        when the head, or the body, began."""

        _head_bytes = 0
        _since_s = 0.0
        _sweeper: asyncio.TimerHandle | None = None
        # The head of a request that asks for another protocol, without that; it is read again, with what follows it.
        _plain_head: bytes | None = None

        @override
        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._since_s = self.loop.time()
            cls = type(self)
            if cls._sweeper is None:
                cls._sweeper = self.loop.call_later(_SWEEP_S, cls._sweep, self.loop, self.connections)

        @override
        def data_received(self, data: bytes) -> None:
            if self._head_bytes > 0:
                self._head_bytes += len(data)
                if self._head_bytes > head_bytes_max:
                    self._refuse(431, "HEAD_TOO_LARGE", f"the request line and headers may have {head_bytes_max} bytes")
                    return
            self._unset_keepalive_if_required()
            self._parse(data)
            self._await_request()
            if self._head_bytes == 0:
                # The head did not end in its first chunk.
                self._head_bytes = len(data)
                self._since_s = self.loop.time()

        def _parse(self, data: bytes) -> None:
            """Feed the parser, as uvicorn does, but lose no body of a request that asks for another protocol.

            Clients in Java ask for h2c with their first request. The parser takes that for the last one of HTTP/1.1,
            and what follows its head for the other protocol's. Nobody speaks another one here, and a server may ignore
            the wish (RFC 9110, section 7.8): the request is read again without it.
            """
            try:
                while data:
                    try:
                        self.parser.feed_data(data)
                        return
                    except HttpParserUpgrade as stop:
                        if self._plain_head is None:
                            return
                        data = self._plain_head + data[stop.args[0] :]
                        self._plain_head = None
                        self.parser = HttpRequestParser(self)
                        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
            except HttpParserError:
                self.logger.warning("not a request of HTTP/1.1")
                self.send_400_response("")

        @override
        def on_headers_complete(self) -> None:
            self._check_host()
            if self.parser.should_upgrade() and any(name == b"upgrade" for name, _ in self.headers):
                version = self.parser.get_http_version().encode()
                lines = [b"%s %s HTTP/%s" % (self.parser.get_method(), self.url, version)]
                lines += [b"%s: %s" % header for header in self.headers if header[0] != b"upgrade"]
                self._plain_head = b"\r\n".join((*lines, b"", b""))
                return
            self._head_bytes = _IN_BODY
            self._since_s = self.loop.time()
            super().on_headers_complete()

        def _check_host(self) -> None:
            """Exactly one Host, and one that is a host (RFC 9112, section 3.2); HTTP/1.0 may leave it out.

            Raises:
                ValueError: the parser makes a refusal of it.
            """
            hosts = [value for name, value in self.headers if name == b"host"]
            if len(hosts) > 1 or (hosts and _HOST.fullmatch(hosts[0]) is None):
                raise ValueError("not one host")
            if not hosts and self.parser.get_http_version() == "1.1":
                raise ValueError("no host")

        @override
        def on_message_complete(self) -> None:
            if self._plain_head is not None:
                return
            self._head_bytes = _COMPLETE
            super().on_message_complete()

        @override
        def on_message_begin(self) -> None:
            self._head_bytes = 0
            super().on_message_begin()

        @override
        def send_400_response(self, msg: str) -> None:
            self._refuse(400, "BAD_REQUEST", "this is not a request of HTTP/1.1")

        def _refuse(self, status: int, code: str, detail: str) -> None:
            """Answer what is arriving, and close. Where another answer is due or under way, close after that one."""
            if self._owes_an_answer():
                self.cycle.keep_alive = False
                return
            body = problem(status, code, detail)
            head = (
                f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\ncontent-type: {MEDIA_TYPE}\r\n"
                f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
            )
            self.transport.write(head.encode() + body)
            self.transport.close()

        def _owes_an_answer(self) -> bool:
            if self.cycle is None or self.cycle.response_complete:
                return False
            # Of a body that is arriving the cycle is its own, unless others are before it.
            return self._head_bytes != _IN_BODY or self.cycle.response_started or bool(self.pipeline)

        @classmethod
        def _sweep(cls, loop: asyncio.AbstractEventLoop, connections: Any) -> None:
            """Close connections whose head, first byte or body does not come; once a second for all of them."""
            late_s = loop.time() - timeout_s
            for one in [one for one in connections if isinstance(one, cls) and one._since_s < late_s]:
                # Between requests of a connection the keep-alive time-out holds.
                if one._head_bytes == _IN_BODY:
                    one._refuse(408, "BODY_TOO_SLOW", "the request body did not arrive in time")
                elif one._head_bytes > 0 or (one._head_bytes == 0 and one.cycle is None):
                    one._refuse(408, "HEAD_TOO_SLOW", "the request line and headers did not arrive in time")
            cls._sweeper = loop.call_later(_SWEEP_S, cls._sweep, loop, connections) if connections else None

    return BoundedHttpProtocol
