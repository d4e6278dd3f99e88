"""The private channel: bidders who said who they are, and are told how they stand.

A bidder may have many connections, and a connection may follow many items. Here are only those who authenticated, so an
event costs a look at the few bidders whom it concerns, however many watch the item.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Collection, Iterable
from dataclasses import dataclass, field
from typing import Final, Protocol

from redis.exceptions import RedisError

from broadcast_service.core.frames import authenticated_frame, error_frame
from broadcast_service.core.pace import Pace
from broadcast_service.core.standings import Facts, Standings
from broadcast_service.transport.connection import Connection
from shared.feed_tokens import Identity
from shared.redis_layout.item_hash import ItemState

logger = logging.getLogger(__name__)

READERS: Final = 4
USERS_PER_READ: Final = 256
"""Bounds how long one read keeps Redis from deciding bids; the other bidders of the item have their turn after it."""

RETRY_S: Final = 0.5


class NotAuthenticated(Exception):
    """The connection has not said who it is, or its token is expired."""


class Reader(Protocol):
    """See :class:`~broadcast_service.sources.bidders.BidderReader`, whose errors it shares."""

    async def read(self, item_id: str, users: Collection[str]) -> dict[str, Facts]: ...


class Items(Protocol):
    """What the private channel asks the hub."""

    def state_of(self, item_id: str) -> ItemState | None:
        """The item as its newest viewers were shown it."""

    def items_of(self, viewer: Connection) -> Collection[str]:
        """What the viewer follows."""


@dataclass(frozen=True, slots=True)
class _Session:
    identity: Identity
    items: set[str] = field(default_factory=set)
    """Of which the bidder is told how they stand."""


class PrivateChannel:
    """``run`` works until it is cancelled; everything else is synchronous.

    Args:
        rate_max: standings of one item a second, at most; 0 for no limit.
    """

    def __init__(self, items: Items, reader: Reader, *, rate_max: float) -> None:
        self._items = items
        self._reader = reader
        self._rate_max = rate_max
        self._sessions: dict[Connection, _Session] = {}
        self._boards: dict[str, Standings[Connection]] = {}
        self._timers: dict[str, asyncio.TimerHandle] = {}
        # Of which users of an item the facts are to be read. An item is in the queue once.
        self._wanted: dict[str, set[str]] = {}
        self._queue: asyncio.Queue[str] = asyncio.Queue()
        # Items that are read now: one read at a time, so that an older answer never replaces a newer one.
        self._reading: set[str] = set()
        self._is_failing = False

    def __len__(self) -> int:
        """Connections that are authenticated."""
        return len(self._sessions)

    # ------------------------------------------------------------------------------------------------ connections

    def authenticate(self, connection: Connection, identity: Identity) -> None:
        """The connection is this bidder's until the token expires; a later token replaces the earlier one."""
        self.leave(connection)
        session = self._sessions[connection] = _Session(identity)
        connection.send((authenticated_frame(identity.user_id, identity.expires_s * 1_000_000),))
        for item_id in list(self._items.items_of(connection)):
            self._listen(connection, session, item_id)

    def leave(self, connection: Connection) -> None:
        """The connection is gone, or nobody's any more."""
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
        """The viewer follows the item no longer."""
        session = self._sessions.get(connection)
        if session is not None and item_id in session.items:
            session.items.discard(item_id)
            self._stop(connection, session, item_id)

    def ask(self, connection: Connection, item_id: str) -> bool:
        """Read again how the bidder stands, and tell it whether it changed or not. False: the item is not followed.

        Raises:
            NotAuthenticated: nobody knows who asks.
        """
        session = self._sessions.get(connection)
        if session is None:
            raise NotAuthenticated
        if item_id not in session.items:
            return False
        self._listen(connection, session, item_id)
        return True

    def expire(self, now_s: float | None = None) -> None:
        """Forget who the bearers of expired tokens are, and tell them. To be called every second or so."""
        now_s = time.time() if now_s is None else now_s
        expired = [each for each, session in self._sessions.items() if session.identity.expires_s <= now_s]
        for connection in expired:
            self.leave(connection)
            text = "the token is expired; authenticate with a new one to be told how you stand"
            connection.send((error_frame("TOKEN_EXPIRED", text),))

    # ----------------------------------------------------------------------------------------------------- events

    def standing_changed(self, item_id: str, users: frozenset[str]) -> None:
        """An event that was just sent concerns these users; an empty set: everybody who follows the item."""
        board = self._boards.get(item_id)
        if board is None:
            return
        self._want(item_id, board.changed(users))
        self._flush(item_id, board)

    def _listen(self, connection: Connection, session: _Session, item_id: str) -> None:
        session.items.add(item_id)
        identity = session.identity
        board = self._boards.get(item_id)
        if board is None:
            board = self._boards[item_id] = Standings(item_id, Pace(self._rate_max))
        board.listen(connection, identity.user_id, sees_maximum=identity.sees_maximum)
        self._want(item_id, [identity.user_id])

    def _stop(self, connection: Connection, session: _Session, item_id: str) -> None:
        board = self._boards.get(item_id)
        if board is None:
            return
        board.leave(connection, session.identity.user_id)
        if not board:
            del self._boards[item_id]
            timer = self._timers.pop(item_id, None)
            if timer is not None:
                timer.cancel()

    def _flush(self, item_id: str, board: Standings[Connection]) -> None:
        """Send what may be sent now, and come back for the rest."""
        if item_id in self._timers:
            return
        loop = asyncio.get_running_loop()
        for connection, frame in board.flush(self._items.state_of(item_id), loop.time()):
            connection.send((frame,))
        due_s = board.due_s()
        if due_s is not None:
            self._timers[item_id] = loop.call_at(due_s, self._on_timer, item_id)

    def _on_timer(self, item_id: str) -> None:
        del self._timers[item_id]
        board = self._boards.get(item_id)
        if board is not None:
            self._flush(item_id, board)

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
        """Read what is wanted until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(READERS):
                group.create_task(self._work())

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
        # Taken before the read begins: who is wanted from now on is read once more.
        wanted = self._wanted.pop(item_id)
        board = self._boards.get(item_id)
        if board is None:
            return
        users = {wanted.pop() for _ in range(min(len(wanted), USERS_PER_READ))}
        if wanted:
            self._wanted[item_id] = wanted
        board.reading(users)
        try:
            facts = await self._reader.read(item_id, users)
        except (RedisError, OSError, TimeoutError, ValueError) as error:
            if not self._is_failing:
                logger.warning("standings cannot be read, trying on: %s: %s", type(error).__name__, error)
            self._is_failing = True
            asyncio.get_running_loop().call_later(RETRY_S, self._want, item_id, users)
            return
        self._is_failing = False
        if self._boards.get(item_id) is board:
            board.learn(facts)
            self._flush(item_id, board)
