"""All WebSockets of bids of this gateway: bounds their number, and pings them."""

from __future__ import annotations

import asyncio
import secrets
from typing import Final, Protocol

from shared.http.addresses import Addresses

LOOK_S: Final = 1.0
PING_EVERY_S: Final = 20.0
PONG_WITHIN_S: Final = 20.0


class Looked(Protocol):
    """A session; see :meth:`api_gateway.bid_socket.session.Session.look`."""

    def look(self) -> None: ...


class Pinged(Protocol):
    """Its WebSocket; see :meth:`shared.http.protocols.websockets.DirectWebSocket.tend`."""

    def tend(self, now_s: float, ping: bytes, *, interval_s: float, timeout_s: float) -> None: ...


class BidSockets:
    """The open WebSockets. ``refused_total`` counts those for which there was no room."""

    def __init__(self, *, connections_max: int, each_max: int = 0, caller_max: int = 0) -> None:
        """At most ``each_max`` WebSockets are of one address and ``caller_max`` of one caller; 0 for no such limit."""
        self._connections_max = connections_max
        self._addresses = Addresses(each_max)
        self._callers = Addresses(caller_max)
        self._open: dict[Looked, tuple[Pinged, str, str]] = {}
        self.refused_total = 0

    def __len__(self) -> int:
        return len(self._open)

    @property
    def is_full(self) -> bool:
        """Whether there is no room for another one."""
        return len(self._open) >= self._connections_max

    def is_full_for(self, address: str) -> bool:
        """Whether this address has as many as it may. An empty address is not known, and never full."""
        return bool(address) and self._addresses.is_full(address)

    def is_full_for_caller(self, user_id: str) -> bool:
        """Whether this caller has as many as they may. An empty user id is not known, and never full."""
        return bool(user_id) and self._callers.is_full(user_id)

    def enter(self, session: Looked, socket: Pinged, address: str = "", user_id: str = "") -> None:
        """Count an open WebSocket."""
        self._open[session] = socket, address, user_id
        if address:
            self._addresses.enter(address)
        if user_id:
            self._callers.enter(user_id)

    def leave(self, session: Looked) -> None:
        """Stop counting it. May be called more than once."""
        _, address, user_id = self._open.pop(session, (None, "", ""))
        if address:
            self._addresses.leave(address)
        if user_id:
            self._callers.leave(user_id)

    async def run(self) -> None:
        """Ping all of them, and close those whose clients say nothing or take nothing, until cancelled."""
        clock = asyncio.get_running_loop().time
        while True:
            await asyncio.sleep(LOOK_S)
            now_s, ping = clock(), secrets.token_bytes(4)
            for session, (socket, *_) in list(self._open.items()):
                session.look()
                socket.tend(now_s, ping, interval_s=PING_EVERY_S, timeout_s=PONG_WITHIN_S)
