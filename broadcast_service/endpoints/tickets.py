"""Exchanges the tickets that connections send for identities: the one part of an operation that has to ask Redis.

At most one ticket of a connection waits, the newest, so there are never more tickets than connections. Waiting tickets
are exchanged together, in one round trip.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Container
from typing import Final

from redis.asyncio import Redis
from redis.exceptions import RedisError

from broadcast_service.core.frames import error_frame
from broadcast_service.endpoints.private import PrivateChannel
from broadcast_service.transport.connection import Connection
from shared.identity.tickets import take_tickets
from shared.pacing.seldom import Seldom

logger = logging.getLogger(__name__)
_cannot_ask: Final = Seldom(logger)

TOGETHER_MAX: Final = 100
"""Tickets in one round trip."""


class Tickets:
    """``run`` works until it is cancelled; ``say`` only notes."""

    def __init__(self, redis: Redis, private: PrivateChannel, open_connections: Container[Connection]) -> None:
        self._redis = redis
        self._private = private
        self._open = open_connections
        self._waiting: dict[Connection, str] = {}
        self._any = asyncio.Event()

    def __len__(self) -> int:
        """How many tickets wait."""
        return len(self._waiting)

    def say(self, connection: Connection, ticket: str) -> None:
        """The connection sent this ticket. It is answered later: by ``authenticated``, or by an error."""
        self._waiting[connection] = ticket
        self._any.set()

    def leave(self, connection: Connection) -> None:
        """The connection is gone."""
        self._waiting.pop(connection, None)

    async def run(self) -> None:
        """Exchange tickets until cancelled."""
        while True:
            await self._any.wait()
            self._any.clear()
            while self._waiting:
                await self._take()

    async def _take(self) -> None:
        taken = [(each, self._waiting.pop(each)) for each in list(self._waiting)[:TOGETHER_MAX]]
        try:
            identities = await take_tickets(self._redis, [ticket for _, ticket in taken])
        except (RedisError, OSError, TimeoutError, ValueError) as error:
            for connection, _ in taken:
                self._not_checked(connection, error)
            return
        for (connection, _), identity in zip(taken, identities, strict=True):
            if isinstance(identity, Exception):
                self._not_checked(connection, identity)
            elif identity is None:
                text = "the ticket is unknown, used, or older than half a minute; get a new one for each connection"
                self._tell(connection, "TICKET_INVALID", text)
            # The connection may have gone meanwhile. Authenticated now, it would never be removed.
            elif connection in self._open:
                self._private.authenticate(connection, identity)

    def _not_checked(self, connection: Connection, error: Exception) -> None:
        _cannot_ask.warning("tickets cannot be taken: %s: %s", type(error).__name__, error)
        text = "the ticket cannot be checked now; wait some seconds, and get a new one"
        self._tell(connection, "TICKET_NOT_CHECKED", text)

    def _tell(self, connection: Connection, code: str, text: str) -> None:
        if connection in self._open:
            connection.send((error_frame(code, text),))
