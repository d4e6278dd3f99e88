"""Operators who pause items, let them go on, move their ends and strike bids while others bid, and write down what they
are told."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import random
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterable, Sequence
from urllib.parse import quote

import httpx2 as httpx

from tests.faults.rig.bidders import Bidders
from tests.faults.rig.history import Operation, Outcome
from tests.waiting import eventually

_TIMEOUT_S = 5.0
_PAUSED_MAX_S = 0.6
_GO_ON_WITHIN_S = 30.0
_EXTENDED_S = 1


class Operators:
    """A few of them, each at one operation at a time. ``pause_s``: how long one rests at most after an operation.

    Each request has a reason of its own, which the event in the log carries. Nothing is sent again under the same
    reason: an operation whose outcome is unknown may be in the log once, or not.
    """

    def __init__(self, bidders: Bidders, items: Sequence[str], *, operators: int, seed: int, pause_s: float) -> None:
        self.operations: dict[str, list[Operation]] = defaultdict(list)
        self.outcomes: dict[str, Counter[Outcome]] = defaultdict(Counter)
        """Per kind of operation, how often which outcome was told."""
        self.codes: Counter[str] = Counter()
        self._bidders = bidders
        self._items = list(items)
        self._operators = operators
        self._seed = seed
        self._pause_s = pause_s
        self._numbers = itertools.count()
        self._running = False

    def move_to(self, items: Iterable[str]) -> None:
        """From now on operate on these items alone."""
        self._items = list(items)

    def forget(self, items: Iterable[str]) -> None:
        """Drop what was written down of these items; they have been judged."""
        for item_id in items:
            self.operations.pop(item_id, None)

    @contextlib.asynccontextmanager
    async def operating(self) -> AsyncIterator[None]:
        """Operate in the background; at the end no item is left paused."""
        self._running = True
        async with httpx.AsyncClient(timeout=_TIMEOUT_S) as http:
            work = [
                asyncio.create_task(self._operate(http, random.Random(f"{self._seed}/operator/{number}")))
                for number in range(self._operators)
            ]
            try:
                yield
            finally:
                self._running = False
                await asyncio.gather(*work)

    async def _operate(self, http: httpx.AsyncClient, chance: random.Random) -> None:
        while self._running:
            item_id = chance.choice(self._items)
            if chance.random() < 0.4:
                await self.ask(http, chance.choice(self._bidders.gateways), "pause", item_id)
                await asyncio.sleep(chance.uniform(0, _PAUSED_MAX_S))
                await self.go_on(http, item_id)
            elif chance.random() < 0.15:
                await self.ask(http, chance.choice(self._bidders.gateways), "extend", item_id)
            else:
                accepted = self._bidders.accepted[item_id]
                told_ids = [told_id for _, told_id in accepted if told_id is not None]
                # Mostly one of the latest: those are who leads, or what made an automatic bid.
                told_id = chance.choice(told_ids[-8:] or ["nobodys"]) if chance.random() < 0.7 else "nobodys"
                if told_id == "nobodys" and told_ids and chance.random() < 0.9:
                    told_id = chance.choice(told_ids)
                await self.ask(http, chance.choice(self._bidders.gateways), "void", item_id, told_id)
            await asyncio.sleep(chance.uniform(0, self._pause_s))

    async def go_on(self, http: httpx.AsyncClient, item_id: str) -> None:
        """Let an item go on, until nobody says any more that this is not known."""

        async def is_decided() -> bool:
            return await self.ask(http, self._bidders.gateways[0], "resume", item_id) in ("ok", "refused")

        with contextlib.suppress(TimeoutError):
            await eventually(is_decided, seconds=_GO_ON_WITHIN_S)

    async def ask(
        self, http: httpx.AsyncClient, gateway: str, kind: str, item_id: str, bid_id: str | None = None
    ) -> Outcome:
        """Send one operation and write down what came of it."""
        reason = f"{kind} {self._seed}-{next(self._numbers)}"
        path = kind if bid_id is None else f"bids/{quote(bid_id, safe='')}/void"
        invoked_s = time.monotonic()
        answer = None
        with contextlib.suppress(httpx.HTTPError):
            more = {"by_s": _EXTENDED_S} if kind == "extend" else {}
            answer = await http.post(f"{gateway}/api/v1/items/{item_id}/{path}", json={"reason": reason} | more)
        code = None if answer is None or answer.status_code == 200 else str(answer.json().get("code"))
        outcome = _outcome_of(answer)
        self.operations[item_id].append(
            Operation(kind, reason, invoked_s, time.monotonic(), outcome, code, bid_id),
        )
        self.outcomes[kind][outcome] += 1
        self.codes[f"{kind}: {'ok' if outcome == 'ok' else code or 'NO_ANSWER'}"] += 1
        return outcome


def _outcome_of(answer: httpx.Response | None) -> Outcome:
    """A 503 may come after the operation was done, when the item could not be read again."""
    if answer is None or answer.status_code == 503:
        return "unknown"
    if answer.status_code == 200:
        return "ok"
    assert answer.status_code in (404, 409), f"{answer.status_code}: {answer.text}"
    return "refused"
