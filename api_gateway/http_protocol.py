"""uvicorn's HTTP protocol, with bounds on how a request arrives.

uvicorn bounds neither the size of the request line and headers under httptools nor the time in which they and the body
arrive, so a client that never ends them holds a connection, and memory, for ever. The size of bodies is bounded by the
application; their time here, since one look a second at all connections costs less than a timer for each request.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from api_gateway.problems import MEDIA_TYPE, problem

_SWEEP_S = 1.0
# What ``_head_bytes`` is while no head is arriving.
_IN_BODY = -1
_COMPLETE = -2


def bounded_protocol(*, head_bytes_max: int, timeout_s: float) -> type[HttpToolsProtocol]:
    """A protocol class that answers 431 to a head over ``head_bytes_max``, and 408 to a head, or then a body, that
    takes longer than ``timeout_s``.

    The size counts from the head's second chunk on: a first chunk is at most one read of the socket (64 KiB).
    """

    class BoundedHttpProtocol(HttpToolsProtocol):
        """One connection. ``_head_bytes`` counts while a head is incomplete, and is negative otherwise; ``_since_s`` is
        when the head, or the body, began."""

        _head_bytes = 0
        _since_s = 0.0
        _sweeper: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._since_s = self.loop.time()
            cls = type(self)
            if cls._sweeper is None:
                cls._sweeper = self.loop.call_later(_SWEEP_S, cls._sweep, self.loop, self.connections)

        def data_received(self, data: bytes) -> None:
            if self._head_bytes > 0:
                self._head_bytes += len(data)
                if self._head_bytes > head_bytes_max:
                    self._refuse(431, "HEAD_TOO_LARGE", f"the request line and headers may have {head_bytes_max} bytes")
                    return
            super().data_received(data)
            if self._head_bytes == 0:
                # The head did not end in its first chunk.
                self._head_bytes = len(data)
                self._since_s = self.loop.time()

        def on_headers_complete(self) -> None:
            self._head_bytes = _IN_BODY
            self._since_s = self.loop.time()
            super().on_headers_complete()

        def on_message_complete(self) -> None:
            self._head_bytes = _COMPLETE
            super().on_message_complete()

        def on_message_begin(self) -> None:
            self._head_bytes = 0
            super().on_message_begin()

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
                # Between requests of a connection the keep-alive time-out of uvicorn holds.
                if one._head_bytes == _IN_BODY:
                    one._refuse(408, "BODY_TOO_SLOW", "the request body did not arrive in time")
                elif one._head_bytes > 0 or (one._head_bytes == 0 and one.cycle is None):
                    one._refuse(408, "HEAD_TOO_SLOW", "the request line and headers did not arrive in time")
            cls._sweeper = loop.call_later(_SWEEP_S, cls._sweep, loop, connections) if connections else None

    return BoundedHttpProtocol
