"""uvicorn's HTTP protocol, with a bound on a request's head.

uvicorn bounds neither the size of the request line and headers under httptools nor the time in which they arrive, so a
client that never ends them holds a connection, and memory, for ever. Bodies are bounded by the application.
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from api_gateway.problems import MEDIA_TYPE, problem

_SWEEP_S = 1.0
_IN_BODY = -1


def bounded_protocol(*, head_bytes_max: int, head_timeout_s: float) -> type[HttpToolsProtocol]:
    """A protocol class that answers 431 to a head over ``head_bytes_max`` and 408 to one slower than
    ``head_timeout_s``.

    The size counts from the head's second chunk on: a first chunk is at most one read of the socket (64 KiB).
    """

    class BoundedHttpProtocol(HttpToolsProtocol):
        """One connection. ``_head_bytes`` counts while a head is incomplete, and is negative otherwise."""

        _head_bytes = 0
        _head_since_s = 0.0
        _sweeper: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            self._head_since_s = self.loop.time()
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
                self._head_since_s = self.loop.time()

        def on_headers_complete(self) -> None:
            self._head_bytes = _IN_BODY
            super().on_headers_complete()

        def on_message_begin(self) -> None:
            self._head_bytes = 0
            super().on_message_begin()

        def _refuse(self, status: int, code: str, detail: str) -> None:
            body = problem(status, code, detail)
            head = (
                f"HTTP/1.1 {status} {code}\r\ncontent-type: {MEDIA_TYPE}\r\ncontent-length: {len(body)}\r\n"
                "connection: close\r\n\r\n"
            )
            self.transport.write(head.encode() + body)
            self.transport.close()

        @classmethod
        def _sweep(cls, loop: asyncio.AbstractEventLoop, connections: Any) -> None:
            """Close connections whose head, or whose first byte, does not come; once a second for all of them."""
            late_s = loop.time() - head_timeout_s
            waiting = [one for one in connections if isinstance(one, cls) and one._is_waiting_for_head()]
            for connection in waiting:
                if connection._head_since_s < late_s:
                    connection._refuse(408, "HEAD_TOO_SLOW", "the request line and headers did not arrive in time")
            cls._sweeper = loop.call_later(_SWEEP_S, cls._sweep, loop, connections) if connections else None

        def _is_waiting_for_head(self) -> bool:
            # Between requests of a connection the keep-alive time-out of uvicorn holds.
            return self._head_bytes > 0 or (self._head_bytes == 0 and self.cycle is None)

    return BoundedHttpProtocol
