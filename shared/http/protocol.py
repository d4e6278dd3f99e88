"""uvicorn's HTTP protocol, where no connection stays for ever over which nothing is under way."""

from __future__ import annotations

from typing import Any

from typing_extensions import override
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class IdleHttpProtocol(HttpToolsProtocol):
    """One connection, which is closed when it was silent for ``timeout_keep_alive`` and no answer is due.

    uvicorn begins that time-out only after an answer, and ends it with the first byte that comes: also with one that
    begins no request, such as a line break behind a body (RFC 9112, section 2.2) or the rest of a body that was
    refused before it was there. Of a client that then vanishes without a word the connection would stay for ever, and
    so would one over which nothing was ever asked.
    """

    @override
    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self._await_request()

    @override
    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._await_request()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        # Where it was reset, uvicorn would let the time-out keep all of this in memory.
        self._unset_keepalive_if_required()

    @override
    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        # A transport that is closed waits until its last answer is taken, for ever where the client does not read.
        self.loop.call_later(self.timeout_keep_alive, self.transport.abort)

    def _await_request(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            return
        # It is in there unless it is lost, or has become a WebSocket.
        if self in self.connections and not self.transport.is_closing():
            self._unset_keepalive_if_required()
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )
