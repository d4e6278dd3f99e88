"""uvicorn's HTTP protocol, with a bound on a request's head.

Under httptools uvicorn bounds neither the size of the request line and headers nor the time in which they arrive. A
client that never ends them would hold memory and a connection that no limit counts: those count from the upgrade on.
"""

from __future__ import annotations

import asyncio
from http import HTTPStatus
from typing import Any, Final

from starlette.responses import Response
from typing_extensions import override

from broadcast_service.endpoints.problems import problem
from shared.http.protocol import IdleHttpProtocol

HEAD_BYTES_MAX: Final = 16 * 1024
"""Twice what the longest address with a token needs. What one read of the socket brings is parsed in any case."""


_LAST: Final = {"connection": "close"}


class BoundedHeadProtocol(IdleHttpProtocol):
    """One connection over which plain HTTP is spoken, be it only to ask for a WebSocket."""

    head_timeout_s = 10.0
    """From the connection, or from the first byte of a later request, to the end of the headers."""

    _head_bytes = 0
    _head_timer: asyncio.TimerHandle | None = None
    """There while a head is awaited. Between two requests the keep-alive time-out holds instead."""

    @override
    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._await_head()

    @override
    def on_message_begin(self) -> None:
        if self._head_timer is None:
            self._await_head()
        super().on_message_begin()

    @override
    def on_headers_complete(self) -> None:
        self._await_no_head()
        super().on_headers_complete()

    @override
    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._head_timer is not None:
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES_MAX:
                detail = f"the request line and headers may have {HEAD_BYTES_MAX} bytes"
                self._refuse(problem(431, "HEAD_TOO_LARGE", detail, headers=_LAST))

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._await_no_head()
        super().connection_lost(exc)

    def _await_head(self) -> None:
        self._head_bytes = 0
        self._head_timer = self.loop.call_later(self.head_timeout_s, self._too_slow)

    def _too_slow(self) -> None:
        if self._head_bytes:
            detail = f"the request line and headers did not arrive in {self.head_timeout_s:g} s"
            self._refuse(problem(408, "HEAD_TOO_SLOW", detail, headers=_LAST))
        else:
            # Browsers open connections ahead. An answer would be taken for that to a request that comes just now.
            self._head_timer = None
            self.transport.close()

    def _await_no_head(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _refuse(self, answer: Response) -> None:
        self._await_no_head()
        if self.transport.is_closing():
            return
        lines = [
            f"HTTP/1.1 {answer.status_code} {HTTPStatus(answer.status_code).phrase}".encode(),
            *(b"%b: %b" % header for header in answer.raw_headers),
        ]
        self.transport.write(b"\r\n".join([*lines, b"", bytes(answer.body)]))
        self.transport.close()
