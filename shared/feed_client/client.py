"""A client of the live feed that reconnects::

    async with FeedClient("ws://127.0.0.1:8081", items=["demo-1"]) as feed:
        async for update in feed:
            if isinstance(update, ItemUpdate):
                show(update.price)

It reconnects with jitter, resumes each item where it was, treats silence as a dead connection, and shows no version
twice and none that is older than the last one. All decisions are in :mod:`shared.feed_client.state`.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Mapping
from types import TracebackType
from typing import Any, Final, Self

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus
from websockets.http11 import Response

from shared.feed_client.state import FeedState, Step
from shared.feed_client.updates import ConnectionState, FeedClosed, FeedDenied, Refused, Update

OPEN_TIMEOUT_S: Final = 10.0
SEND_TIMEOUT_S: Final = 10.0
CLOSE_TIMEOUT_S: Final = 2.0
TICKET_TIMEOUT_S: Final = 10.0
ABNORMAL: Final = 1006
"""The code of a connection that ended without a close frame."""

NO_TICKET: Final = "NO_TICKET"
"""The code of the update that says that no ticket was to be had."""

_SESSION_OVER: Final = "TOKEN_EXPIRED"
_DETAIL_CHARACTERS_MAX: Final = 300


class FeedClient:
    """An asynchronous iterator of :data:`~shared.feed_client.updates.Update`, which ends when the block is left.

    Nothing is read while nobody iterates, so to a slow user the service sends fewer and newer states. Waiting for the
    next update may be cancelled, for example by a time-out, and begun again. Only one task may iterate.

    Args:
        url: of the service, ``ws://host:port`` or ``wss://…``; ``http`` and ``https`` work too.
        items: ids to follow from the start; :meth:`follow` adds further ones.
        token: the feed token, which opens the private channel.
        new_ticket: instead of a token, a function that returns a ticket. It is called for each connection, and again
            when the session of the last ticket is over. While it fails the feed goes on without the private channel,
            and an update says so.
        full: every event of every item, instead of a limited number of states per second.
        chance: random numbers from 0 to 1, for the waits between attempts.

    Raises:
        ValueError: the URL is not that of a feed, an id is not an item id, or there are both a token and tickets.
        FeedClosed, FeedDenied: while iterating: the service refused for good.
    """

    def __init__(
        self,
        url: str,
        items: Iterable[str] = (),
        *,
        token: str | None = None,
        new_ticket: Callable[[], Awaitable[str]] | None = None,
        full: bool = False,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._state = FeedState(items, token=token, full=full, chance=chance)
        self._address = _address(url, self._state.query)
        if token is not None and new_ticket is not None:
            raise ValueError("the private channel is opened by a token or by tickets, not by both")
        self._new_ticket = new_ticket
        self._socket: ClientConnection | None = None
        self._connecting: asyncio.Task[None] | None = None
        self._updates: deque[Update] = deque()
        self._retry_at_s = 0.0
        self._is_ended = False

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_ended = True
        if self._connecting is not None:
            self._connecting.cancel()
            await asyncio.gather(self._connecting, return_exceptions=True)
        socket, self._socket = self._socket, None
        if socket is not None:
            await socket.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Update:
        while not self._updates:
            if self._is_ended:
                raise StopAsyncIteration
            try:
                await (self._connect() if self._socket is None else self._read(self._socket))
            except (FeedClosed, FeedDenied):
                self._is_ended = True
                raise
        return self._updates.popleft()

    # ---------------------------------------------------------------------------------------------------- what is known

    @property
    def connection(self) -> ConnectionState:
        """The state of the connection, and so how far the items can be trusted."""
        return self._state.connection

    @property
    def items(self) -> tuple[str, ...]:
        """The ids that are followed."""
        return self._state.items

    def item(self, item_id: str) -> Mapping[str, Any] | None:
        """The newest known public state of an item; None before the first one."""
        return self._state.item(item_id)

    def is_current(self, item_id: str) -> bool:
        """Whether the item is up to date, as far as client and service can tell."""
        return self._state.is_current(item_id)

    def server_now_us(self) -> int | None:
        """Microseconds since 1970 by the service's clock; None before its first message."""
        return self._state.clock.now_us(_now_s())

    def remaining_s(self, item_id: str) -> float | None:
        """Seconds to the end of an item by the service's clock; None without an end or a clock."""
        return self._state.remaining_s(item_id, _now_s())

    # --------------------------------------------------------------------------------------------------- what to follow

    async def follow(self, *items: str) -> None:
        """Follow these items too.

        Raises:
            ValueError: one of them is not an item id; nothing was changed.
        """
        await self._carry_out(self._state.follow(items))

    async def unfollow(self, *items: str) -> None:
        """Stop following these items."""
        await self._carry_out(self._state.unfollow(items))

    async def authenticate(self, token: str) -> None:
        """Open the private channel with this token, now and on each new connection."""
        await self._carry_out(self._state.authenticate(token))

    async def ask_standing(self, *items: str) -> None:
        """Ask for the bidder's standing again, whether it changed or not."""
        await self._carry_out(self._state.ask_standing(items))

    # --------------------------------------------------------------------------------------------------------- inside

    async def _connect(self) -> None:
        # In a task of its own, so that it goes on when the waiting caller is cancelled by a short time-out.
        if self._connecting is None:
            self._connecting = asyncio.create_task(self._open())
        try:
            await asyncio.shield(self._connecting)
        finally:
            if self._connecting.done():
                self._connecting = None

    async def _open(self) -> None:
        await asyncio.sleep(max(0.0, self._retry_at_s - _now_s()))
        self._note(self._state.connecting())
        ticket = await self._ticket()
        try:
            self._socket = await connect(
                self._address,
                compression=None,
                open_timeout=OPEN_TIMEOUT_S,
                close_timeout=CLOSE_TIMEOUT_S,
            )
        except InvalidStatus as refusal:
            answer = refusal.response
            self._note(self._state.refused(answer.status_code, _detail(answer), _retry_after_s(answer)))
        except (OSError, TimeoutError, EOFError, InvalidHandshake):
            self._note(self._state.failed())
        else:
            await self._carry_out(self._state.opened(ticket))

    async def _ticket(self) -> str | None:
        """A ticket for one connection; None where there is none to be had."""
        if self._new_ticket is None:
            return None
        try:
            async with asyncio.timeout(TICKET_TIMEOUT_S):
                return await self._new_ticket()
        except Exception as error:  # whatever the user's own function raises: the public feed must go on
            self._updates.append(Refused(NO_TICKET, f"{type(error).__name__}: {error}"))
            return None

    async def _read(self, socket: ClientConnection) -> None:
        try:
            async with asyncio.timeout(self._state.silence_max_s):
                text = await socket.recv()
        except TimeoutError:
            # Silence: a half-open connection, or a service that hangs.
            await self._drop(socket)
        except ConnectionClosed as closed:
            # Only a code from the service counts; one of our own side is a failure like any other.
            if socket is not self._socket:
                return  # Another task could not send in time, and has dropped this connection.
            self._socket = None
            code, reason = (closed.rcvd.code, closed.rcvd.reason) if closed.rcvd else (ABNORMAL, "")
            self._note(self._state.closed(code, reason, _now_s()))
        else:
            step = self._state.received(text, _now_s())
            await self._carry_out(step)
            if step.retry_in_s is not None:
                self._give_up(socket)
            elif any(isinstance(each, Refused) and each.code == _SESSION_OVER for each in step.updates):
                ticket = await self._ticket()
                if ticket is not None:
                    await self._carry_out(self._state.authenticate_by_ticket(ticket))

    async def _carry_out(self, step: Step) -> None:
        """Queue the updates, and send the messages before anybody sees them."""
        self._note(step)
        socket = self._socket
        if socket is None or not step.messages:
            return
        try:
            async with asyncio.timeout(SEND_TIMEOUT_S):
                for message in step.messages:
                    await socket.send(message)
        except ConnectionClosed:
            return  # Reading tells why. The next connection sends all of it again.
        except TimeoutError:
            await self._drop(socket)
        except asyncio.CancelledError:
            # Only some messages may have been sent, and nobody would send the rest: reconnect.
            self._forget(socket)
            raise

    async def _drop(self, socket: ClientConnection) -> None:
        self._forget(socket)
        with contextlib.suppress(OSError):
            await socket.wait_closed()

    def _forget(self, socket: ClientConnection) -> None:
        if self._give_up(socket):
            self._note(self._state.closed(ABNORMAL, "", _now_s()))

    def _give_up(self, socket: ClientConnection) -> bool:
        """Abort without a close frame, which a peer that does not read would not answer. True: the socket was ours."""
        socket.transport.abort()
        if socket is not self._socket:
            return False
        self._socket = None
        return True

    def _note(self, step: Step) -> None:
        self._updates.extend(step.updates)
        if step.retry_in_s is not None:
            self._retry_at_s = _now_s() + step.retry_in_s


def _now_s() -> float:
    return asyncio.get_running_loop().time()


def _address(url: str, query: str) -> str:
    scheme, _, rest = url.partition("://")
    scheme = {"http": "ws", "https": "wss"}.get(scheme, scheme)
    if scheme not in ("ws", "wss") or not rest or "?" in rest or "#" in rest:
        raise ValueError(f"{url!r} is no address of a feed, such as ws://127.0.0.1:8081")
    return f"{scheme}://{rest.rstrip('/')}/ws" + (f"?{query}" if query else "")


def _detail(answer: Response) -> str:
    """The text of the service's answer, shortened, for people."""
    return (answer.body or b"").decode(errors="replace")[:_DETAIL_CHARACTERS_MAX]


def _retry_after_s(answer: Response) -> float | None:
    try:
        return float(answer.headers.get("Retry-After", ""))
    except ValueError:
        return None  # Absent, or a date; the usual waits suffice.
