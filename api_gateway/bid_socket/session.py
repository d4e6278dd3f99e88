"""One WebSocket of bids: decides what a message is, places it, and answers.

Bids of one read share a flush, as they are all placed before the event loop goes on. Answers of one moment share a
write. Bids on one item are placed in the order in which they came.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Coroutine
from time import perf_counter
from typing import Final, Protocol

from msgspec import UNSET

from api_gateway.bid_socket.messages import (
    IDLE,
    INTERNAL_ERROR,
    SLOW_READER,
    TOKEN_EXPIRED,
    TOO_MANY_ERRORS,
    BidOp,
    CloseCode,
    Id,
    answer,
    id_in,
    read_bid,
    refusal,
)
from api_gateway.context import Context
from api_gateway.door.rates import Near
from api_gateway.engine.bids.batcher import PendingBid
from api_gateway.engine.bids.errors import ItemMissing
from api_gateway.engine.bids.pending_verdict import PendingVerdict
from api_gateway.hot_path import SentBid, answer_missing, check_item_id, decide, render
from api_gateway.identity.access import Permit
from shared.domain.errors import BiddingError, InvalidInput
from shared.http.problems import INTERNAL_ERROR as ERROR_CODE
from shared.http.problems import INTERNAL_ERROR_DETAIL, problem_body
from shared.logs import about

logger = logging.getLogger(__name__)

IN_FLIGHT_MAX: Final = 1_024
"""The most bids of one connection without an answer. Further ones are not read until there is room."""
UNKNOWN_AT_ONCE: Final = 16
"""The most items among these that this process does not know yet, and has to look for or to open."""
ERRORS_MAX: Final = 100
"""The burst of messages that are no bids or are beyond their caller's rate, and of pings; one more is allowed each
second."""
STALLED_S: Final = 10.0
"""How long a client may take no answers while some wait."""
IDLE_S: Final = 900.0
"""How long a client may say nothing."""

Told = tuple[int, bytes]


class Socket(Protocol):
    """The connection, as :mod:`api_gateway.bid_socket.protocol` offers it. No method waits."""

    @property
    def is_writable(self) -> bool: ...

    @property
    def write(self) -> Callable[[bytes], object]: ...

    def finish(self, code: int, reason: str) -> None: ...

    def go_on(self) -> None:
        """There is room for more bids."""


class Session:
    """Implements :class:`shared.http.protocols.websockets.Listener`."""

    def __init__(self, context: Context, permit: Permit, socket: Socket, *, on_gone: Callable[[Session], None]) -> None:
        """``permit``: of the caller who has opened the connection."""
        self._context = context
        self._permit = permit
        self._socket = socket
        self._on_gone = on_gone
        self._clock = asyncio.get_running_loop().time
        self.in_flight = 0
        """Bids without an answer."""
        self._answers: list[bytes] = []
        self._is_writing = False
        # Of each item that is not known yet, the bids that wait for the first one.
        self._unknown: dict[str, deque[tuple[BidOp, float, Near | None]]] = {}
        self._turns = asyncio.Semaphore(UNKNOWN_AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()
        self._errors = 0.0
        self._heard_s = self._erred_s = self._clock()
        self._full_since_s: float | None = None
        self._leaves: CloseCode | None = None
        self._is_gone = False

    @property
    def is_busy(self) -> bool:
        """Whether no further message is to be read now."""
        return self.in_flight >= IN_FLIGHT_MAX or not self._socket.is_writable or self._leaves is not None

    # ------------------------------------------------------------------------------------- what happens on the socket

    def on_message(self, text: str | None) -> None:
        """One whole message; None where it was binary."""
        began_s = perf_counter()
        self.in_flight += 1
        if text is None:
            self._mistake(None, InvalidInput("a bid is a text message with one JSON object"))
            return
        try:
            op = read_bid(text)
            if op.user_id is UNSET and self._permit.own_id is None:
                raise InvalidInput("Object missing required field `user_id`")
            near = self._permit.account.charge(1)
        except BiddingError as error:
            self._mistake(id_in(text), error)
            return
        waiting = self._unknown.get(op.item_id)
        if waiting is not None:
            waiting.append((op, began_s, near))
            return
        exponent = self._context.items.known.get(op.item_id)
        if exponent is None:
            self._unknown[op.item_id] = deque([(op, began_s, near)])
            self._in_background(self._find(op.item_id))
            return
        self._place(op, exponent, began_s, near)

    def on_noise(self) -> None:
        """A ping, an unsolicited pong, a fragment: no bid, and yet it takes time."""
        self._count_error()

    def on_full(self) -> None:
        if self._full_since_s is None:
            self._full_since_s = self._clock()

    def on_writable(self) -> None:
        self._full_since_s = None
        self._write()
        self._end_if_answered()
        self._socket.go_on()

    def on_gone(self) -> None:
        """Bids in flight are decided all the same."""
        self._is_gone = True
        self._answers.clear()
        self._leave_if_idle()

    # ------------------------------------------------------------------------------------------------- what others ask

    def leave(self, code: CloseCode) -> None:
        """Read no more, and close when all that was taken is answered."""
        if self._leaves is None:
            self._leaves = code
            self._end_if_answered()

    def look(self) -> None:
        """Close the connection if its client says nothing, takes no answers, or has a token that is no longer good.
        Call it every second or so."""
        if self._is_gone:
            return
        now_s = self._clock()
        if self._context.access.is_over(self._permit, time.time()):
            self.leave(TOKEN_EXPIRED)
        if self._full_since_s is not None and now_s - self._full_since_s > STALLED_S:
            self._close(SLOW_READER)
        elif not self.in_flight and now_s - self._heard_s > IDLE_S:
            self._close(IDLE)

    # ---------------------------------------------------------------------------------------------------------- inside

    def _place(self, op: BidOp, exponent: int, began_s: float, near: Near | None) -> None:
        self._heard_s = self._clock()
        try:
            bid = SentBid.of(op, self._permit).pending(op.item_id, exponent)
            self._context.committer.place(bid)
        except BiddingError as error:
            self._tell(refusal(op.id, error, near))
            return

        def told(verdict: PendingVerdict) -> None:
            try:
                status, body = render(verdict.result(), op.item_id, exponent, bid.amount, bid.key)
            except ItemMissing:
                self._in_background(self._answer_missing(op.id, bid, began_s, near))
            except BiddingError as error:
                self._tell(refusal(op.id, error, near))
            except Exception:
                self._fail(op)
            else:
                self._context.bid_seconds.observe(perf_counter() - began_s)
                self._tell(answer(op.id, status, body, near))

        bid.verdict.add_done_callback(told)

    async def _find(self, item_id: str) -> None:
        """Answer the first bid on an item, which finds or opens it, and then place those that came behind it."""
        waiting = self._unknown[item_id]
        try:
            while waiting:
                op, began_s, near = waiting.popleft()
                exponent = self._context.items.known.get(item_id)
                if exponent is not None:
                    self._place(op, exponent, began_s, near)
                    continue
                async with self._turns:
                    await self._answer(op.id, began_s, near, self._decide(op))
        finally:
            del self._unknown[item_id]

    async def _decide(self, op: BidOp) -> Told:
        check_item_id(op.item_id)
        return await decide(self._context, op.item_id, SentBid.of(op, self._permit))

    async def _answer_missing(self, message_id: Id, bid: PendingBid, began_s: float, near: Near | None) -> None:
        await self._answer(message_id, began_s, near, answer_missing(self._context.items, bid))

    async def _answer(
        self, message_id: Id, began_s: float, near: Near | None, work: Coroutine[None, None, Told]
    ) -> None:
        self._heard_s = self._clock()
        try:
            status, body = await work
        except BiddingError as error:
            self._tell(refusal(message_id, error, near))
        except Exception:
            logger.exception("a bid over a WebSocket")
            self._tell(answer(message_id, 500, problem_body(500, ERROR_CODE, INTERNAL_ERROR_DETAIL)))
        else:
            self._context.bid_seconds.observe(perf_counter() - began_s)
            self._tell(answer(message_id, status, body, near))

    def _fail(self, op: BidOp) -> None:
        """Log the error and answer the bid. Call it while the exception is being handled."""
        who = self._permit.principal.user_id if self._permit.principal is not None else ""
        told = about(item=op.item_id, bid=op.bid_id or "", principal=who)
        logger.exception("bid on item %s", op.item_id, extra=told)
        self._tell(answer(op.id, 500, problem_body(500, ERROR_CODE, INTERNAL_ERROR_DETAIL)))

    def _mistake(self, message_id: Id | None, error: BiddingError) -> None:
        self._tell(refusal(message_id, error))
        self._count_error()

    def _count_error(self) -> None:
        now_s = self._clock()
        self._errors = max(0.0, self._errors - (now_s - self._erred_s)) + 1
        self._erred_s = now_s
        if self._errors > ERRORS_MAX:
            self.leave(TOO_MANY_ERRORS)

    def _tell(self, frame: bytes) -> None:
        """Send an answer, with all others of this turn of the event loop."""
        was_busy = self.in_flight >= IN_FLIGHT_MAX
        self.in_flight -= 1
        if self._is_gone:
            return
        self._answers.append(frame)
        if not self._is_writing:
            self._is_writing = True
            asyncio.get_running_loop().call_soon(self._write_turn)
        if was_busy:
            self._socket.go_on()

    def _write_turn(self) -> None:
        self._is_writing = False
        self._write()
        self._end_if_answered()

    def _write(self) -> None:
        # While the client takes nothing, what waits is bounded by what is in flight: nothing more is read.
        if self._answers and self._socket.is_writable:
            frames, self._answers = self._answers, []
            self._socket.write(b"".join(frames))

    def _end_if_answered(self) -> None:
        if self._leaves is not None and not self.in_flight and not self._answers:
            self._close(self._leaves)

    def _close(self, code: CloseCode) -> None:
        self._socket.finish(code.code, code.reason)

    def _leave_if_idle(self) -> None:
        """The session keeps its place until all work for it has ended. Otherwise a client that connects again and
        again, and leaves work behind each time, would have no bound."""
        if self._is_gone and not self._tasks:
            self._on_gone(self)

    def _in_background(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work, name="bid-socket")
        self._tasks.add(task)
        task.add_done_callback(self._done)

    def _done(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._leave_if_idle()
        if not task.cancelled() and task.exception() is not None:
            logger.error("a bid over a WebSocket", exc_info=task.exception())
            self._close(INTERNAL_ERROR)
