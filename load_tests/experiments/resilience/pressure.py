"""People who go on whatever fails: they bid, watch and read, and every answer is counted in the phase that it came
in."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import time
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from random import Random
from typing import Final

import httpx2 as httpx

from load_tests.generator.answers import BidAnswer, Fate, read_bid_answer, read_item
from load_tests.generator.bidder import Bidder
from load_tests.generator.histogram import bucket_of
from load_tests.generator.ledger import Entry
from load_tests.generator.tally import Tally
from shared.domain.money import format_amount
from shared.feed_client.client import FeedClient
from shared.feed_client.updates import FeedClosed, FeedDenied, ItemUpdate

_SPREAD_MINOR: Final = 50
_BACK_OFF_S: Final = 0.2
_READ_EVERY_S: Final = 0.1
_AWAY_S: Final = 0.2


@dataclass(slots=True)
class PhaseCounts:
    """What happened in one phase. ``codes`` are of answers that were no verdicts."""

    began_s: float = field(default_factory=time.monotonic)
    bids: int = 0
    failures: int = 0
    frames: int = 0
    reads: int = 0
    reads_failed: int = 0
    codes: Counter[str] = field(default_factory=Counter)
    times: Counter[int] = field(default_factory=Counter)
    read_times: Counter[int] = field(default_factory=Counter)

    @property
    def seconds(self) -> float:
        """How long it has lasted."""
        return time.monotonic() - self.began_s


class Pressure:
    """Bidders on some items, viewers of all of them, and a reader of histories and lists.

    ``tally`` has the books of the whole run, ``counts`` those of the phase that is under way.
    """

    def __init__(self, client: httpx.AsyncClient, feed_url: str, item_ids: list[str], tag: str) -> None:
        self._client = client
        self._feed_url = feed_url
        self._item_ids = item_ids
        self._tag = tag
        self.tally = Tally(item_ids)
        self.counts = PhaseCounts()
        self._bidding: list[asyncio.Task[None]] = []
        self.shown: dict[str, dict[str, tuple[int, int]]] = {}
        """Per viewer, the version of each item that it was shown last."""

    def next_phase(self) -> PhaseCounts:
        """Count anew; returns the counts of the phase that is over."""
        before, self.counts = self.counts, PhaseCounts()
        return before

    @contextlib.asynccontextmanager
    async def applied(self, *, bidders: int, viewers: int, pause_s: float) -> AsyncIterator[None]:
        """While the block runs. An error of one of these people, other than what they count, is raised at its end."""
        async with asyncio.TaskGroup() as group:
            self._bidding = [group.create_task(self._bid(number, pause_s)) for number in range(bidders)]
            tasks = [*self._bidding]
            tasks += [group.create_task(self._watch(f"viewer-{number}")) for number in range(viewers)]
            tasks.append(group.create_task(self._read()))
            try:
                yield
            finally:
                for task in tasks:
                    task.cancel()

    async def stop_bidding(self) -> None:
        """Stop the bidders; viewers and readers stay. A bid that is cut off in flight is unknown."""
        for task in self._bidding:
            task.cancel()
        await asyncio.gather(*self._bidding, return_exceptions=True)

    async def _bid(self, number: int, pause_s: float) -> None:
        rng = Random(f"{self._tag}:{number}")
        bidder = Bidder(f"{self._tag}-user-{number}", _SPREAD_MINOR, rng)
        numbers = itertools.count()
        while True:
            await asyncio.sleep(rng.expovariate(1 / pause_s))
            item_id = rng.choice(self._item_ids)
            amount = bidder.next_amount(item_id)
            if amount is None:
                await self._look(bidder, item_id)
                continue
            entry = Entry(f"{bidder.user_id}-{next(numbers)}", bidder.user_id, amount)
            answer = await self._place(item_id, entry)
            bidder.saw_answer(item_id, answer)
            if answer.fate in (Fate.UNKNOWN, Fate.FAILED):
                await asyncio.sleep(_BACK_OFF_S)

    async def _place(self, item_id: str, entry: Entry) -> BidAnswer:
        price = format_amount(entry.amount, 2)
        body = f'{{"user_id":"{entry.user_id}","amount":{price},"bid_id":"{entry.bid_id}"}}'
        self.tally.sent(item_id, entry)
        began_s = time.monotonic()
        try:
            response = await self._client.post(
                f"/api/v1/items/{item_id}/bid", content=body, headers={"Content-Type": "application/json"}
            )
            answer = read_bid_answer(response.status_code, response.content)
        except httpx.HTTPError:
            answer = read_bid_answer(0, None)
        took_ms = (time.monotonic() - began_s) * 1_000
        self.tally.answered(entry.bid_id, answer, took_ms)
        if answer.fate in (Fate.ACCEPTED, Fate.REFUSED):
            self.counts.bids += 1
            self.counts.times[bucket_of(took_ms)] += 1
        else:
            self.counts.failures += 1
            self.counts.codes[answer.reason] += 1
        return answer

    async def _look(self, bidder: Bidder, item_id: str) -> None:
        with contextlib.suppress(httpx.HTTPError, ValueError):
            response = await self._client.get(f"/api/v1/items/{item_id}")
            if response.status_code == 200:
                bidder.saw_item(read_item(response.content))
                return
        await asyncio.sleep(_BACK_OFF_S)

    async def _read(self) -> None:
        """Read in turn a history, from PostgreSQL and Redis, and a list, from PostgreSQL, through the cache if there
        is one."""
        for number in itertools.count():
            item_id = self._item_ids[number % len(self._item_ids)]
            path = "/api/v1/items" if number % 2 else f"/api/v1/items/{item_id}/bids"
            began_s = time.monotonic()
            try:
                response = await self._client.get(path, params={"limit": 20})
                is_answered = response.status_code == 200
            except httpx.HTTPError:
                is_answered = False
            self.counts.reads += 1
            self.counts.reads_failed += not is_answered
            self.counts.read_times[bucket_of((time.monotonic() - began_s) * 1_000)] += 1
            await asyncio.sleep(_READ_EVERY_S)

    async def _watch(self, viewer: str) -> None:
        seen = self.shown.setdefault(viewer, {})
        while True:
            with contextlib.suppress(FeedClosed, FeedDenied):
                async with FeedClient(self._feed_url, items=self._item_ids) as feed:
                    async for update in feed:
                        if isinstance(update, ItemUpdate):
                            seen[update.item_id] = update.version
                            self.counts.frames += 1
            await asyncio.sleep(_AWAY_S)
