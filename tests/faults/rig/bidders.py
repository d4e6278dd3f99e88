"""Bidders of a fault run, who write down all that they are told. Viewers and operators are in ``clients/``."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import random
import time
from collections import Counter, defaultdict, deque
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import replace
from decimal import Decimal

import httpx2 as httpx

from tests.faults.clients.answers import answer_of, minor, outcome_of, public_of_json
from tests.faults.clients.watchers import NOT_EVENTS, Watcher
from tests.faults.clients.wishes import EVERY, Heard, Kinds, Wish, misuse_of, wish_of
from tests.faults.rig.history import Answer, Outcome, Read, Request
from tests.waiting import eventually

__all__ = ["NOT_EVENTS", "PAUSE_S", "Bidders", "Watcher", "minor"]

PAUSE_S = 0.02
_REPEATS_MAX = 3
# A client that hears nothing for so long asks again, perhaps another gateway.
TIMEOUT_S = 5.0
# How many accepted bids are remembered per item, to be repeated, misused or struck.
_REMEMBERED_MAX = 100


class Bidders:
    """A crowd that bids on and on; each bidder a little above the price that it heard of, now and then too low.

    A bid with a key, of unknown outcome, is asked for or repeated, a few times at once and finally by :meth:`resolve`;
    of one without a key nobody will know. Which gateway a bidder talks to is drawn from :attr:`gateways`, which may be
    changed while it runs. ``pause_s``: how long a bidder rests at most after a bid. ``readers``: how many more only ask
    for the state of items. ``kinds``: what they send. ``timeout_s``: how long one waits for an answer.
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
        kinds: Kinds = EVERY,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self.gateways = list(gateways)
        self.kinds = kinds
        self.reads: dict[str, list[Read]] = defaultdict(list)
        self.requests: dict[str, list[Request]] = {item_id: [] for item_id in items}
        self.accepted: dict[str, deque[tuple[Wish, str | None]]] = defaultdict(lambda: deque(maxlen=_REMEMBERED_MAX))
        """Per item, the latest bids that were accepted, and the id that the platform gave to each."""
        self.codes: Counter[str] = Counter()
        self.outcomes: dict[str, Counter[Outcome]] = defaultdict(Counter)
        """Per kind of bid, how often which outcome was told."""
        self.headers_of: dict[str, httpx.Headers] = {}
        self._items = list(items)
        self._bidders = bidders
        self._readers = readers
        self._seed = seed
        self._pause_s = pause_s
        self._timeout_s = timeout_s
        self._heard: dict[str, Heard] = defaultdict(Heard)
        self._open: dict[str, Wish] = {}
        self._numbers = itertools.count()
        self._running = False

    @property
    def acknowledged(self) -> int:
        """Requests that were answered 201."""
        return self.codes["ok"]

    @property
    def unresolved(self) -> int:
        """Bids whose outcome no client knows, though they have a key to ask by."""
        return len(self._open)

    def move_to(self, items: Mapping[str, int | None]) -> None:
        """From now on bid on these items alone, each with its buy-now price in cents where there is one."""
        for item_id, buy_now in items.items():
            self.requests.setdefault(item_id, [])
            self._heard[item_id] = Heard(buy_now=buy_now)
        self._items = list(items)

    def forget(self, items: Iterable[str]) -> None:
        """Drop what was written down of these items; they have been judged."""
        for item_id in items:
            self.requests.pop(item_id, None)
            self.reads.pop(item_id, None)
            self.accepted.pop(item_id, None)
            self._heard.pop(item_id, None)

    async def more(self, acknowledged: int, *, within_s: float = 90.0) -> None:
        """Wait until so many bids more were acknowledged."""
        await self.told("ok", acknowledged, within_s=within_s)

    async def told(self, code: str, times: int, *, within_s: float = 90.0) -> None:
        """Wait until the bidders have got an answer so often again: ``ok``, ``refused``, or an error's code."""
        target = self.codes[code] + times
        await eventually(lambda: self.codes[code] >= target, f"{times} times {code}", seconds=within_s)

    @contextlib.asynccontextmanager
    async def bidding(self) -> AsyncIterator[None]:
        """Bid in the background; at the end every bidder finishes the bid that it is at."""
        self._running = True
        clients = self._bidders + self._readers
        limits = httpx.Limits(max_connections=clients, max_keepalive_connections=clients)
        async with httpx.AsyncClient(timeout=self._timeout_s, limits=limits) as http:
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
            item_id = self._choose(chance)
            name = f"{self._seed}-{next(self._numbers)}"
            wish = wish_of(chance, self.kinds, name, item_id, user_id, self._heard[item_id])
            outcome = await self._until_told(http, wish, chance)
            if wish.key != "none" and outcome in ("ok", "refused") and chance.random() < self.kinds.repeats:
                await self.send(http, chance.choice(self.gateways), wish)
            if self.accepted[item_id] and chance.random() < self.kinds.misuse:
                taken, told_id = chance.choice(self.accepted[item_id])
                wrong = misuse_of(chance, f"{name}-misuse", taken, told_id, user_id)
                if wrong is not None:
                    await self.send(http, chance.choice(self.gateways), wrong)
            await asyncio.sleep(chance.uniform(0, self._pause_s))

    def _choose(self, chance: random.Random) -> str:
        """An item; one that is over now and then, where there are others."""
        item_id = chance.choice(self._items)
        if self._heard[item_id].is_over and chance.random() < 0.95:
            item_id = chance.choice([each for each in self._items if not self._heard[each].is_over] or self._items)
        return item_id

    async def _until_told(self, http: httpx.AsyncClient, wish: Wish, chance: random.Random) -> Outcome:
        """Send it; where nobody knows what became of it, ask or send it again a few times, if it has a key."""
        outcome: Outcome = "unknown"
        for _ in range(_REPEATS_MAX):
            if outcome == "unknown" and wish.name in self._open and chance.random() < self.kinds.lookups:
                outcome = await self.look_up(http, chance.choice(self.gateways), wish)
            if outcome not in ("ok", "refused"):
                outcome = await self.send(http, chance.choice(self.gateways), wish)
            if outcome in ("ok", "refused", "rejected") or wish.key == "none" or not self._running:
                break
            await asyncio.sleep(PAUSE_S)
        return outcome

    async def _read(self, http: httpx.AsyncClient, chance: random.Random) -> None:
        while self._running:
            item_id = chance.choice(self._items)
            invoked_s = time.monotonic()
            with contextlib.suppress(httpx.HTTPError):
                answer = await http.get(f"{chance.choice(self.gateways)}/api/v1/items/{item_id}")
                assert answer.status_code in (200, 503), f"{answer.status_code}: {answer.text}"
                if answer.status_code == 200:
                    item = json.loads(answer.text, parse_float=Decimal)
                    price, public = minor(item["current_bid"]), public_of_json(item)
                    read = Read(item["epoch"], item["seq"], price, invoked_s, time.monotonic(), public)
                    self.reads[item_id].append(read)
            await asyncio.sleep(chance.uniform(0, self._pause_s))

    async def place(
        self, http: httpx.AsyncClient, gateway: str, bid_id: str, item_id: str, user_id: str, amount: int
    ) -> Outcome:
        """Send one plain bid and write down what came of it."""
        return await self.send(http, gateway, Wish(bid_id, item_id, user_id, amount))

    async def send(self, http: httpx.AsyncClient, gateway: str, wish: Wish) -> Outcome:
        """Send one bid and write down what came of it."""
        if wish.key != "none" and not wish.is_misuse:
            self._open.setdefault(wish.name, wish)
        invoked_s = time.monotonic()
        answer = None
        with contextlib.suppress(httpx.HTTPError):
            url = f"{gateway}/api/v1/items/{wish.item_id}/bid"
            answer = await http.post(url, content=wish.body(), headers=wish.headers())
        return self._note(wish, answer, invoked_s, is_lookup=False)

    async def look_up(self, http: httpx.AsyncClient, gateway: str, wish: Wish) -> Outcome:
        """Ask by its key what became of a bid."""
        invoked_s = time.monotonic()
        answer = None
        with contextlib.suppress(httpx.HTTPError):
            parameters = {"item_id": wish.item_id, "user_id": wish.user_id}
            answer = await http.get(f"{gateway}/api/v1/bids/by-key/{wish.name}", params=parameters)
        return self._note(wish, answer, invoked_s, is_lookup=True)

    def _note(self, wish: Wish, answer: httpx.Response | None, invoked_s: float, *, is_lookup: bool) -> Outcome:
        completed_s = time.monotonic()
        body = {} if answer is None else json.loads(answer.text, parse_float=Decimal)
        outcome, code = outcome_of(answer, body, is_lookup=is_lookup)
        told = None
        if outcome in ("ok", "refused"):
            told = answer_of(body)
            self._hear(wish.item_id, told, code)
        # Sent before and of unknown outcome: that this repeat changed nothing says nothing of the first.
        if outcome in ("ok", "refused", "rejected") or (
            outcome == "declined" and not is_lookup and not self._was_unknown(wish.item_id, wish.name)
        ):
            self._open.pop(wish.name, None)
        self.requests[wish.item_id].append(
            Request(
                wish.name,
                wish.user_id,
                wish.amount,
                invoked_s,
                completed_s,
                outcome,
                body.get("seq") if outcome == "ok" else None,
                wish.max_amount,
                wish.key,
                code,
                told,
                is_lookup,
                wish.is_misuse,
            )
        )
        if outcome == "ok" and told is not None and not wish.is_misuse:
            self.accepted[wish.item_id].append((wish, told.bid_id))
        self._count(wish, answer, outcome, code, is_lookup=is_lookup)
        return outcome

    def _count(
        self, wish: Wish, answer: httpx.Response | None, outcome: Outcome, code: str | None, *, is_lookup: bool
    ) -> None:
        self.outcomes["look-up" if is_lookup else wish.kind][outcome] += 1
        if not is_lookup:
            told = outcome if outcome in ("ok", "refused") else (code or "NO_ANSWER")
            self.codes[told] += 1
            if answer is not None:
                self.headers_of[told] = answer.headers

    def _hear(self, item_id: str, told: Answer, code: str | None) -> None:
        is_over = self._heard[item_id].is_over or code in ("CLOSED", "SOLD", "CANCELLED")
        self._heard[item_id] = replace(self._heard[item_id], minimum=told.min_next_bid, is_over=is_over)

    def _was_unknown(self, item_id: str, bid_id: str) -> bool:
        recent = self.requests[item_id][-200:]
        return any(each.bid_id == bid_id and each.outcome == "unknown" for each in recent)

    async def resolve(self) -> int:
        """Repeat every bid of unknown outcome under its key, as its client would, until it is known."""
        waiting = list(self._open.values())
        async with httpx.AsyncClient(timeout=self._timeout_s) as http:
            for wish in waiting:

                async def decided(wish: Wish = wish) -> bool:
                    return await self.send(http, self.gateways[0], wish) in ("ok", "refused", "rejected")

                await eventually(decided, seconds=60)
        return len(waiting)
