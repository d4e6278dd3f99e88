"""Clients of a fault run: bidders over HTTP and viewers over WebSockets, who write down all that they are told."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import random
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Sequence
from decimal import Decimal
from typing import Any

import httpx
import websockets
from websockets.asyncio.client import connect

from tests.faults.history import Frame, Outcome, Read, Request, Viewer
from tests.waiting import eventually

NOT_EVENTS = ("snapshot", "state", "resumed")
"""Types of frames that carry an item's state and are no event of it."""

PAUSE_S = 0.02
_REPEATS_MAX = 3
# A client that hears nothing for so long asks again, perhaps another gateway.
_TIMEOUT_S = 5.0


def minor(amount: Decimal | int) -> int:
    """Cents of an amount in an answer or a frame."""
    cents = Decimal(amount) * 100
    assert cents == int(cents)
    return int(cents)


class Bidders:
    """A crowd that bids on and on; each bidder a little above the price that it heard of, now and then too low.

    A bid of unknown outcome is repeated under its id, a few times at once and finally by :meth:`resolve`. Which gateway
    a bidder talks to is drawn from :attr:`gateways`, which may be changed while it runs. ``pause_s``: how long a bidder
    rests at most after a bid. ``readers``: how many more only ask for the state of items.
    """

    def __init__(
        self,
        gateways: Sequence[str],
        items: Sequence[str],
        *,
        bidders: int,
        seed: int,
        readers: int = 0,
        pause_s: float = PAUSE_S,
    ) -> None:
        self.gateways = list(gateways)
        self.reads: dict[str, list[Read]] = defaultdict(list)
        self.requests: dict[str, list[Request]] = {item_id: [] for item_id in items}
        self.codes: Counter[str] = Counter()
        self.headers_of: dict[str, httpx.Headers] = {}
        self._items = list(items)
        self._bidders = bidders
        self._readers = readers
        self._seed = seed
        self._pause_s = pause_s
        self._prices: dict[str, int] = defaultdict(int)
        self._open: dict[str, tuple[str, str, int]] = {}
        self._numbers = itertools.count()
        self._told = asyncio.Event()
        self._running = False

    @property
    def acknowledged(self) -> int:
        """Requests that were answered 201."""
        return self.codes["ok"]

    @property
    def unresolved(self) -> int:
        """Bids whose outcome no client knows."""
        return len(self._open)

    async def more(self, acknowledged: int, *, within_s: float = 30.0) -> None:
        """Wait until so many bids more were acknowledged."""
        await self.told("ok", acknowledged, within_s=within_s)

    async def told(self, code: str, times: int, *, within_s: float = 30.0) -> None:
        """Wait until the bidders have got an answer so often again: ``ok``, ``refused``, or an error's code."""
        target = self.codes[code] + times
        async with asyncio.timeout(within_s):
            while self.codes[code] < target:
                self._told.clear()
                await self._told.wait()

    @contextlib.asynccontextmanager
    async def bidding(self) -> AsyncIterator[None]:
        """Bid in the background; at the end every bidder finishes the bid that it is at."""
        self._running = True
        clients = self._bidders + self._readers
        limits = httpx.Limits(max_connections=clients, max_keepalive_connections=clients)
        async with httpx.AsyncClient(timeout=_TIMEOUT_S, limits=limits) as http:
            work = [
                asyncio.create_task(self._bid(http, f"user-{number}", random.Random(f"{self._seed}/{number}")))
                for number in range(self._bidders)
            ] + [
                asyncio.create_task(self._read(http, random.Random(f"{self._seed}/reader/{number}")))
                for number in range(self._readers)
            ]
            try:
                yield
            finally:
                self._running = False
                await asyncio.gather(*work)

    async def _bid(self, http: httpx.AsyncClient, user_id: str, chance: random.Random) -> None:
        while self._running:
            item_id = chance.choice(self._items)
            amount = max(1, self._prices[item_id] + chance.choice((-5, 1, 1, 2, 10, 25)))
            bid_id = f"{self._seed}-{next(self._numbers)}"
            for _ in range(_REPEATS_MAX):
                outcome = await self.place(http, chance.choice(self.gateways), bid_id, item_id, user_id, amount)
                if outcome in ("ok", "refused") or not self._running:
                    break
                await asyncio.sleep(PAUSE_S)
            await asyncio.sleep(chance.uniform(0, self._pause_s))

    async def _read(self, http: httpx.AsyncClient, chance: random.Random) -> None:
        while self._running:
            item_id = chance.choice(self._items)
            invoked_s = time.monotonic()
            with contextlib.suppress(httpx.HTTPError):
                answer = await http.get(f"{chance.choice(self.gateways)}/api/v1/items/{item_id}")
                assert answer.status_code in (200, 503), f"{answer.status_code}: {answer.text}"
                if answer.status_code == 200:
                    item = json.loads(answer.text, parse_float=Decimal)
                    read = Read(item["epoch"], item["seq"], minor(item["current_bid"]), invoked_s, time.monotonic())
                    self.reads[item_id].append(read)
            await asyncio.sleep(chance.uniform(0, self._pause_s))

    async def place(
        self, http: httpx.AsyncClient, gateway: str, bid_id: str, item_id: str, user_id: str, amount: int
    ) -> Outcome:
        """Send one bid and write down what came of it."""
        text = f'{{"user_id":"{user_id}","bid_id":"{bid_id}","amount":{amount // 100}.{amount % 100:02d}}}'
        self._open.setdefault(bid_id, (item_id, user_id, amount))
        invoked_s = time.monotonic()
        answer = None
        with contextlib.suppress(httpx.HTTPError):
            answer = await http.post(f"{gateway}/api/v1/items/{item_id}/bid", content=text.encode())
        completed_s = time.monotonic()
        outcome, seq = self._judge(item_id, answer)
        # Sent before and of unknown outcome: that this repeat changed nothing says nothing of the first.
        if outcome != "unknown" and not (outcome == "declined" and self._was_unknown(item_id, bid_id)):
            self._open.pop(bid_id, None)
        self.requests[item_id].append(Request(bid_id, user_id, amount, invoked_s, completed_s, outcome, seq))
        self._told.set()
        return outcome

    def _was_unknown(self, item_id: str, bid_id: str) -> bool:
        recent = self.requests[item_id][-200:]
        return any(each.bid_id == bid_id and each.outcome == "unknown" for each in recent)

    def _judge(self, item_id: str, answer: httpx.Response | None) -> tuple[Outcome, int | None]:
        if answer is None:
            self.codes["NO_ANSWER"] += 1
            return "unknown", None
        body = json.loads(answer.text, parse_float=Decimal)
        if answer.status_code in (200, 201):
            self._prices[item_id] = max(self._prices[item_id], minor(body["current_bid"]))
            outcome: Outcome = "ok" if answer.status_code == 201 else "refused"
            self.codes[outcome] += 1
            return outcome, body.get("seq") if outcome == "ok" else None
        code = body.get("code", str(answer.status_code))
        self.codes[code] += 1
        self.headers_of[code] = answer.headers
        assert answer.status_code == 503, f"{answer.status_code}: {answer.text}"
        return ("unknown" if code == "OUTCOME_UNKNOWN" else "declined"), None

    async def resolve(self) -> int:
        """Repeat every bid of unknown outcome under its id, as its client would, until it is known."""
        waiting = list(self._open.items())
        async with httpx.AsyncClient(timeout=_TIMEOUT_S) as http:
            for bid_id, sent in waiting:

                async def decided(bid_id: str = bid_id, sent: tuple[str, str, int] = sent) -> bool:
                    return await self.place(http, self.gateways[0], bid_id, *sent) in ("ok", "refused")

                await eventually(decided, seconds=60)
        return len(waiting)


class Watcher:
    """A viewer who comes back with ``since`` whenever the connection ends."""

    def __init__(self, name: str, feed_url: str, item_id: str) -> None:
        self.name = name
        self.item_id = item_id
        self.close_codes: list[int] = []
        self.frame_types: Counter[str] = Counter()
        self._url = f"{feed_url.replace('http://', 'ws://')}/ws/items/{item_id}"
        self._connections: list[list[Frame]] = []
        self._latest: Frame | None = None
        self._shown = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    @property
    def connections(self) -> int:
        """How often it has connected."""
        return len(self._connections)

    def view(self) -> Viewer:
        """What it was shown, for the judge."""
        return Viewer(self.name, [list(frames) for frames in self._connections if frames])

    async def start(self) -> None:
        """Watch in the background; returns after the first snapshot."""
        self._task = asyncio.create_task(self._watch())
        await self.reached(0)

    async def reached(self, seq: int, *, within_s: float = 30.0) -> None:
        """Wait until it was shown the state of ``seq`` or a later one."""
        async with asyncio.timeout(within_s):
            while self._latest is None or self._latest.seq < seq:
                assert self._task is not None
                assert not self._task.done(), "the viewer gave up"
                self._shown.clear()
                await self._shown.wait()

    async def joined(self, connections: int, *, within_s: float = 30.0) -> None:
        """Wait until it was let in so often: with a snapshot, or with what it had missed."""
        async with asyncio.timeout(within_s):
            while self.frame_types["snapshot"] + self.frame_types["resumed"] < connections:
                self._shown.clear()
                await self._shown.wait()

    async def stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
            if not self._task.cancelled():
                self._task.result()

    async def _watch(self) -> None:
        while True:
            # Every single event, so that one which is missed is noticed.
            since = "" if self._latest is None else f"&since={self._latest.epoch}:{self._latest.seq}"
            try:
                async with connect(f"{self._url}?feed=full{since}", open_timeout=10, max_queue=None) as socket:
                    self._connections.append([])
                    async for text in socket:
                        self._take(json.loads(text, parse_float=Decimal))
                self.close_codes.append(socket.close_code or 1006)
            except websockets.ConnectionClosed as closed:
                self.close_codes.append(closed.rcvd.code if closed.rcvd else 1006)
            except (OSError, websockets.WebSocketException, TimeoutError, EOFError):
                pass
            await asyncio.sleep(PAUSE_S)

    def _take(self, frame: dict[str, Any]) -> None:
        self.frame_types[frame["type"]] += 1
        self._shown.set()
        if "seq" not in frame or frame.get("current_bid") is None:
            return
        is_event = frame["type"] not in NOT_EVENTS
        latest = Frame(frame["epoch"], frame["seq"], minor(frame["current_bid"]), is_event)
        self._connections[-1].append(latest)
        self._latest = latest
