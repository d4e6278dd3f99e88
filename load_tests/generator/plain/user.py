"""One bidder on a connection of their own, as :class:`load_tests.scenarios.contended.ContendedBidder` is one."""

from __future__ import annotations

import asyncio
import itertools
import time
from random import Random
from typing import Final, cast

import msgspec
from typing_extensions import override

from load_tests.generator.answers import Fate, read_bid_answer, read_item
from load_tests.generator.bidder import Bidder
from load_tests.generator.ledger import Entry
from load_tests.generator.tally import Tally
from shared.domain.money import format_amount

BACK_OFF_S: Final = 0.25
"""What a user waits after an error; without it, users of a platform that is away would spin."""
_HEAD_END: Final = b"\r\n\r\n"
_LENGTH: Final = b"\r\ncontent-length:"
_HEAD_BYTES_MAX: Final = 65_536
_USD_EXPONENT: Final = 2


class Run(msgspec.Struct, frozen=True):
    """What the users of one process are told; see :class:`load_tests.generator.driver.Load`.

    ``users``, ``spawn_per_s`` and ``pace_s`` are of this process: it brings so many users a second, and each has an
    action due every ``pace_s`` seconds (0: as soon as the answer is there).
    """

    host: str
    port: int
    process: int
    users: int
    spawn_per_s: float
    run_s: int
    item_ids: list[str]
    tag: str
    bid_weight: int
    look_weight: int
    spread_minor: int
    think_s: float
    pace_s: float
    patience_s: float
    books: str


class User(asyncio.Protocol):
    """Acts until ``stop``: looks or bids, learns from the answer, and acts again. Connects anew when cut off."""

    def __init__(self, run: Run, tally: Tally, number: int) -> None:
        self._run = run
        self._tally = tally
        user_id = f"{run.tag}-user-{run.process}-{number}"
        self._rng = Random(f"{run.tag}:{user_id}")
        self._bidder = Bidder(user_id, run.spread_minor, self._rng)
        self._bids = itertools.count(1)
        self._due_s = time.monotonic() + self._rng.random() * run.pace_s
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._asked: tuple[str, str | None] | None = None
        """The item of the request under way, and the bid's id; None for a look."""
        self._began_s = self._sent_s = 0.0
        self._is_stopping = False
        self._timer: asyncio.TimerHandle | None = None
        self._at_rest = asyncio.Event()

    async def stop(self) -> None:
        """Send nothing more; return once no answer is awaited."""
        self._is_stopping = True
        if self._asked is not None:
            await self._at_rest.wait()

    def leave(self) -> None:
        """Hang up, with or without an answer."""
        self._is_stopping = True
        if self._transport is not None:
            self._transport.abort()

    def lose_patience(self) -> None:
        """Hang up where the answer is overdue."""
        if self._asked is not None and time.monotonic() - self._sent_s > self._run.patience_s and self._transport:
            self._transport.abort()

    async def connect(self) -> None:
        """Return once the user is connected, and acts."""
        loop = asyncio.get_running_loop()
        while not self._is_stopping:
            try:
                async with asyncio.timeout(5):
                    await loop.create_connection(lambda: self, self._run.host, self._run.port)
            except (OSError, TimeoutError):
                await asyncio.sleep(BACK_OFF_S)
            else:
                return

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's transport is one, but not by its type
        self._buffer = b""
        self._wait(0.0)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._asked is not None:
            self._heard(0, b"")
        if not self._is_stopping:
            asyncio.get_running_loop().create_task(self._come_back())

    async def _come_back(self) -> None:
        await asyncio.sleep(BACK_OFF_S)
        await self.connect()

    def _wait(self, pause_s: float) -> None:
        """Act after a pause; in an open run when the next action is due."""
        if self._run.pace_s:
            pause_s = max(pause_s, self._due_s - time.monotonic())
        if self._timer is not None:
            # This timer is from before the connection was lost: with two, the user would act twice as often.
            self._timer.cancel()
            self._timer = None
        if pause_s > 0:
            self._timer = asyncio.get_running_loop().call_later(pause_s, self._act)
        else:
            self._act()

    def _act(self) -> None:
        run, transport = self._run, self._transport
        if self._is_stopping or transport is None or transport.is_closing() or self._asked is not None:
            return
        self._sent_s = self._began_s = time.monotonic()
        if run.pace_s:
            self._began_s = self._due_s
            self._due_s += run.pace_s
        item_id = self._rng.choice(run.item_ids)
        amount = self._bidder.next_amount(item_id)
        if amount is None or self._rng.randrange(run.bid_weight + run.look_weight) < run.look_weight:
            self._asked = (item_id, None)
            transport.write(f"GET /api/v1/items/{item_id} HTTP/1.1\r\nhost: {run.host}:{run.port}\r\n\r\n".encode())
            return
        user_id = self._bidder.user_id
        bid_id = f"{user_id}-{next(self._bids)}"
        body = f'{{"user_id":"{user_id}","amount":{format_amount(amount, _USD_EXPONENT)},"bid_id":"{bid_id}"}}'
        self._tally.sent(item_id, Entry(bid_id, user_id, amount))
        self._asked = (item_id, bid_id)
        transport.write(
            f"POST /api/v1/items/{item_id}/bid HTTP/1.1\r\nhost: {run.host}:{run.port}\r\n"
            f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n{body}".encode()
        )

    @override
    def data_received(self, data: bytes) -> None:
        data = self._buffer + data if self._buffer else data
        end = data.find(_HEAD_END)
        length = 0
        if end >= 0:
            # Header names are case-insensitive.
            head = data[:end].lower()
            at = head.find(_LENGTH)
            digits = head[at + len(_LENGTH) : end].partition(b"\r\n")[0].strip() if at >= 0 else b""
            if not digits.isdigit() or not data[9:12].isdigit():
                self._hang_up()
                return
            length = int(digits)
        if end < 0 or len(data) < end + len(_HEAD_END) + length:
            self._buffer = data
            if end < 0 and len(data) > _HEAD_BYTES_MAX:
                self._hang_up()
            return
        self._buffer = b""
        if self._asked is None or len(data) > end + len(_HEAD_END) + length:
            # An answer without a request: later answers could not be matched with their requests any more.
            self._hang_up()
            return
        self._wait(self._heard(int(data[9:12]), data[end + len(_HEAD_END) :]))

    def _hang_up(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _heard(self, status: int, body: bytes) -> float:
        """Enter an answer (status 0: there was none) and learn from it; returns the pause after it, in seconds."""
        assert self._asked is not None
        (item_id, bid_id), self._asked = self._asked, None
        if self._is_stopping:
            self._at_rest.set()
        if bid_id is None:
            failure = "no answer" if status == 0 else self._learn(status, body)
            self._tally.looked(item_id, failure if status else None, answered=status != 0)
            return self._run.think_s if failure is None else BACK_OFF_S
        answer = read_bid_answer(status, body, _USD_EXPONENT)
        self._tally.answered(bid_id, answer, (time.monotonic() - self._began_s) * 1_000)
        self._bidder.saw_answer(item_id, answer)
        return BACK_OFF_S if answer.fate in (Fate.UNKNOWN, Fate.FAILED) else self._run.think_s

    def _learn(self, status: int, body: bytes) -> str | None:
        if status != 200:
            return f"HTTP {status}"
        try:
            self._bidder.saw_item(read_item(body, _USD_EXPONENT))
        except ValueError as error:
            return str(error)
        return None
