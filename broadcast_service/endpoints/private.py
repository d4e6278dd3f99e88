"""The private channel: tells authenticated bidders how they stand.

A bidder may have many connections, and a connection may follow many items. Only authenticated connections are kept
here, so the cost of an event depends on the few bidders whom it concerns, however many watch the item.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from typing import Final, Protocol

from redis.exceptions import RedisError

from broadcast_service.core.frames import authenticated_frame, error_frame
from broadcast_service.core.pace import Pace
from broadcast_service.core.standings import Facts, Standings
from broadcast_service.transport.connection import Connection
from shared.feed_tokens import Identity
from shared.redis_layout.item_hash import ItemState
from shared.supervision import loudly

logger = logging.getLogger(__name__)

READERS: Final = 4
USERS_PER_READ: Final = 256
"""Bounds how long one read keeps Redis from deciding bids; further bidders of the item are in the next read."""

RETRY_S: Final = 0.5


class NotAuthenticated(Exception):
    """The connection has not authenticated, or its token is expired."""


class Reader(Protocol):
    """See :class:`~broadcast_service.sources.bidders.BidderReader`, whose errors it shares."""

    async def read(self, item_id: str, users: Collection[str]) -> dict[str, Facts]: ...


class Items(Protocol):
    """What the private channel needs of the hub."""

    def state_of(self, item_id: str) -> ItemState | None:
        """The item as viewers last saw it."""

    def items_of(self, viewer: Connection) -> Collection[str]:
        """The items that the viewer follows."""


@dataclass(frozen=True, slots=True)
class _Session:
    identity: Identity
    items: set[str] = field(default_factory=set)
    """The items on which the bidder is told the standing."""


def _is_never(_: Identity) -> bool:
    return False


def _tell_expired(connection: Connection) -> None:
    text = "the token is no longer valid; authenticate with a new one to be told how you stand"
    connection.send((error_frame("TOKEN_EXPIRED", text),))


class PrivateChannel:
    """``run`` works until it is cancelled; everything else is synchronous.

    Args:
        rate_max: how often per second standings of one item are told, at most; 0 for no limit.
        is_revoked: whether the token or ticket of this identity is revoked.
    """

    def __init__(
        self, items: Items, reader: Reader, *, rate_max: float, is_revoked: Callable[[Identity], bool] = _is_never
    ) -> None:
        self._is_revoked = is_revoked
        self._items = items
        self._reader = reader
        self._rate_max = rate_max
        self._sessions: dict[Connection, _Session] = {}
        self._standings: dict[str, Standings[Connection]] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}
        # By item, the users whose facts must be read. An item is in the queue at most once.
        self._wanted: dict[str, set[str]] = {}
        self._queue: asyncio.Queue[str] = asyncio.Queue()
        # Items with a read in progress: one at a time, so that an older answer never replaces a newer one.
        self._reading: set[str] = set()
        self._is_failing = False

    def __len__(self) -> int:
        """The number of authenticated connections."""
        return len(self._sessions)

    # ------------------------------------------------------------------------------------------------ connections

    def authenticate(self, connection: Connection, identity: Identity) -> None:
        """Tell this bidder's standings until the token expires. A later token replaces an earlier one."""
        self.leave(connection)
        if identity.expires_s <= time.time() or self._is_revoked(identity):
            # Not left to the next `expire`: a viewer that repeats it would be told standings all the time.
            _tell_expired(connection)
            return
        session = self._sessions[connection] = _Session(identity)
        connection.send((authenticated_frame(identity.user_id, identity.expires_s * 1_000_000),))
        for item_id in list(self._items.items_of(connection)):
            self._listen(connection, session, item_id)

    def leave(self, connection: Connection) -> None:
        """The connection is gone, or no longer authenticated."""
        session = self._sessions.pop(connection, None)
        if session is not None:
            for item_id in session.items:
                self._stop(connection, session, item_id)

    def joined(self, item_id: str, viewers: Iterable[Connection]) -> None:
        """These viewers just got their first frame about the item."""
        if not self._sessions:
            return
        for viewer in viewers:
            session = self._sessions.get(viewer)
            if session is not None:
                self._listen(viewer, session, item_id)

    def unfollow(self, connection: Connection, item_id: str) -> None:
        """The viewer no longer follows the item."""
        session = self._sessions.get(connection)
        if session is not None and item_id in session.items:
            session.items.discard(item_id)
            self._stop(connection, session, item_id)

    def ask(self, connection: Connection, item_id: str) -> bool:
        """Read the standing again and tell it, changed or not. False: the item is not followed.

        Raises:
            NotAuthenticated: the connection has no valid token.
        """
        session = self._sessions.get(connection)
        if session is None:
            raise NotAuthenticated
        if item_id not in session.items:
            return False
        self._listen(connection, session, item_id)
        return True

    def expire(self, now_s: float | None = None) -> None:
        """End the sessions of tokens that are expired or revoked, and tell their connections. Call it about once a
        second."""
        now_s = time.time() if now_s is None else now_s
        expired = [
            each
            for each, session in self._sessions.items()
            if session.identity.expires_s <= now_s or self._is_revoked(session.identity)
        ]
        for connection in expired:
            self.leave(connection)
            _tell_expired(connection)

    # ----------------------------------------------------------------------------------------------------- events

    def standing_changed(self, item_id: str, users: frozenset[str]) -> None:
        """An event that was just sent concerns these users; an empty set means everybody who follows the item."""
        standings = self._standings.get(item_id)
        if standings is None:
            return
        self._want(item_id, standings.changed(users))
        self._flush(item_id, standings)

    def _listen(self, connection: Connection, session: _Session, item_id: str) -> None:
        session.items.add(item_id)
        identity = session.identity
        standings = self._standings.get(item_id)
        if standings is None:
            standings = self._standings[item_id] = Standings(item_id, Pace(self._rate_max))
        standings.listen(connection, identity.user_id, sees_maximum=identity.sees_maximum)
        self._want(item_id, [identity.user_id])

    def _stop(self, connection: Connection, session: _Session, item_id: str) -> None:
        standings = self._standings.get(item_id)
        if standings is None:
            return
        standings.leave(connection, session.identity.user_id)
        if not standings:
            del self._standings[item_id]
            timer = self._timers.pop(item_id, None)
            if timer is not None:
                timer.cancel()

    def _flush(self, item_id: str, standings: Standings[Connection]) -> None:
        """Send what may be sent now, and set a timer for the rest."""
        if item_id in self._timers:
            return
        loop = asyncio.get_running_loop()
        for connection, frame in standings.flush(self._items.state_of(item_id), loop.time()):
            connection.send((frame,))
        due_s = standings.due_s()
        if due_s is not None:
            self._timers[item_id] = loop.call_at(due_s, self._on_timer, item_id)

    def _on_timer(self, item_id: str) -> None:
        del self._timers[item_id]
        standings = self._standings.get(item_id)
        if standings is not None:
            self._flush(item_id, standings)

    # --------------------------------------------------------------------------------------------------- reading

    def _want(self, item_id: str, users: Iterable[str]) -> None:
        wanted = set(users)
        if not wanted:
            return
        if item_id in self._wanted:
            self._wanted[item_id] |= wanted
        else:
            self._wanted[item_id] = wanted
            if item_id not in self._reading:
                self._queue.put_nowait(item_id)

    async def run(self) -> None:
        """Read facts until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(READERS):
                group.create_task(loudly(self._work))

    async def _work(self) -> None:
        while True:
            item_id = await self._queue.get()
            self._reading.add(item_id)
            try:
                await self._read(item_id)
            finally:
                self._reading.discard(item_id)
                if item_id in self._wanted:
                    self._queue.put_nowait(item_id)

    async def _read(self, item_id: str) -> None:
        # Taken before the read begins: users who are asked for during it are read once more.
        wanted = self._wanted.pop(item_id)
        standings = self._standings.get(item_id)
        if standings is None:
            return
        users = {wanted.pop() for _ in range(min(len(wanted), USERS_PER_READ))}
        if wanted:
            self._wanted[item_id] = wanted
        standings.reading(users)
        try:
            facts = await self._reader.read(item_id, users)
        except (RedisError, OSError, TimeoutError, ValueError) as error:
            if not self._is_failing:
                logger.warning("standings cannot be read, trying again: %s: %s", type(error).__name__, error)
            self._is_failing = True
            asyncio.get_running_loop().call_later(RETRY_S, self._want, item_id, users)
            return
        self._is_failing = False
        if self._standings.get(item_id) is standings:
            standings.learn(facts)
            self._flush(item_id, standings)
