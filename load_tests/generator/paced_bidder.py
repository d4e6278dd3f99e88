"""One bid after the other at a given pace, each with the time of its sending in its id, so that viewers can tell how
long it took to them."""

from __future__ import annotations

import asyncio
import itertools
import time
from dataclasses import dataclass, field

import httpx2 as httpx

from load_tests.generator.answers import Fate, read_bid_answer
from load_tests.generator.driver import LoadError
from load_tests.generator.ledger import Entry, ItemLedger
from load_tests.generator.viewers import sent_mark
from shared.domain.money import format_amount

_FIRST_MINOR = 100


@dataclass(slots=True)
class PacedBidder:
    """Two people who outbid each other by turns, so that every bid is accepted. ``books`` has them all."""

    client: httpx.AsyncClient
    item_id: str
    tag: str
    books: ItemLedger = field(default_factory=ItemLedger)
    _next_minor: int = _FIRST_MINOR
    _numbers: itertools.count[int] = field(default_factory=itertools.count)

    async def bid(self) -> None:
        """Place one.

        Raises:
            LoadError: it was not accepted, so the pace says nothing.
        """
        number = next(self._numbers)
        user_id = f"{self.tag}-{number % 2}"
        bid_id = f"{self.tag}-{number}{sent_mark(time.time())}"
        entry = Entry(bid_id, user_id, self._next_minor)
        body = f'{{"user_id":"{user_id}","amount":{format_amount(entry.amount, 2)},"bid_id":"{bid_id}"}}'
        try:
            response = await self.client.post(
                f"/api/v1/items/{self.item_id}/bid", content=body, headers={"Content-Type": "application/json"}
            )
        except httpx.HTTPError as error:
            raise LoadError(f"a bid got no answer: {type(error).__name__} {error}") from error
        answer = read_bid_answer(response.status_code, response.content)
        if answer.fate is not Fate.ACCEPTED:
            raise LoadError(f"a bid above all others was not accepted: HTTP {response.status_code} {answer.reason}")
        self.books.accepted.append(Entry(bid_id, user_id, entry.amount, answer.seq or 0))
        self._next_minor = max(self._next_minor + 1, answer.min_next_bid or 0)

    async def bid_at(self, rate: float, seconds: float) -> float:
        """``rate`` bids a second for so many seconds, each when it is due; returns how long it took.

        Raises:
            LoadError: as :meth:`bid`.
        """
        loop = asyncio.get_running_loop()
        began_s = loop.time()
        for number in range(max(1, round(rate * seconds))):
            await asyncio.sleep(max(0.0, began_s + number / rate - loop.time()))
            await self.bid()
        return loop.time() - began_s
