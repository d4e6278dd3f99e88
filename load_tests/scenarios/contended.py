"""Many bidders after few items: every bid competes for the same price.

The hard case for a bidding platform: all writes meet in one Redis key, and every bidder acts on a price that
is already stale.
"""

from __future__ import annotations

import itertools
import time
from random import Random
from typing import ClassVar

from locust import FastHttpUser, task
from typing_extensions import override

from load_tests.answers import BidAnswer, Fate, read_bid_answer, read_item
from load_tests.bidder import Bidder
from load_tests.tally import Entry, Tally
from shared.domain.money import format_amount

BID_NAME = "/api/v1/items/[id]/bid"
LOOK_NAME = "/api/v1/items/[id]"
_HEADERS = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
# What a user waits after an error; without it, users of a platform that is away would spin.
_BACK_OFF_S = 0.25


class ContendedBidder(FastHttpUser):
    """One bidder with one user id for the whole run, bidding on items drawn at random from the run's few.

    For Locust an accepted bid (201) and a refused one (200, ``success: false``) are both successes: losing to
    a faster bidder is what a contended item is about. Everything else is a failure.

    The class attributes are set by the locustfile from the command line before the first user exists.
    """

    network_timeout = 10.0
    connection_timeout = 5.0

    item_ids: ClassVar[list[str]] = []
    run_tag: ClassVar[str] = "run"
    bid_weight: ClassVar[int] = 9
    look_weight: ClassVar[int] = 1
    spread_minor: ClassVar[int] = 100
    exponent: ClassVar[int] = 2
    tally: ClassVar[Tally] = Tally([])
    _numbers: ClassVar[itertools.count[int]] = itertools.count(1)

    @override
    def on_start(self) -> None:
        """Take a user id. Items are looked at before the first bid on them, see :meth:`act`."""
        number = next(self._numbers)
        self._rng = Random(f"{self.run_tag}:{number}")
        self._bidder = Bidder(f"{self.run_tag}-user-{number}", self.spread_minor, self._rng)
        self._bids = itertools.count(1)

    @task
    def act(self) -> None:
        """Look or bid, by the weights; a bidder who leads or does not know the price looks in any case."""
        item_id = self._rng.choice(self.item_ids)
        amount = self._bidder.next_amount(item_id)
        if amount is None or self._rng.randrange(self.bid_weight + self.look_weight) < self.look_weight:
            self._look(item_id)
        else:
            self._bid(item_id, amount)

    def _bid(self, item_id: str, amount: int) -> None:
        user_id = self._bidder.user_id
        bid_id = f"{user_id}-{next(self._bids)}"
        price = format_amount(amount, self.exponent)
        body = f'{{"user_id":"{user_id}","amount":{price},"bid_id":"{bid_id}"}}'
        self.tally.sent(item_id, Entry(bid_id, user_id, amount))
        with self.client.post(
            f"/api/v1/items/{item_id}/bid", data=body, headers=_HEADERS, name=BID_NAME, catch_response=True
        ) as response:
            answer = read_bid_answer(response.status_code, response.content, self.exponent)
            self.tally.answered(bid_id, answer)
            self._bidder.saw_answer(item_id, answer)
            if answer.fate in (Fate.ACCEPTED, Fate.REFUSED):
                response.success()
            else:
                response.failure(_failure_text(answer, response.error))
        if answer.fate in (Fate.UNKNOWN, Fate.FAILED):
            time.sleep(_BACK_OFF_S)

    def _look(self, item_id: str) -> None:
        with self.client.get(
            f"/api/v1/items/{item_id}", headers=_HEADERS, name=LOOK_NAME, catch_response=True
        ) as response:
            if response.status_code == 0:
                self.tally.looked(item_id)
                response.failure(_no_answer(response.error))
                failure: str | None = "no answer"
            else:
                failure = self._learn(response.status_code, response.content or b"")
                self.tally.looked(item_id, failure)
                if failure is None:
                    response.success()
                else:
                    response.failure(failure)
        if failure is not None:
            time.sleep(_BACK_OFF_S)

    def _learn(self, status: int, body: bytes) -> str | None:
        """Remember an item that was shown; returns what is wrong with the answer, or None."""
        if status != 200:
            return f"HTTP {status}"
        try:
            self._bidder.saw_item(read_item(body, self.exponent))
        except ValueError as error:
            return str(error)
        return None


def _failure_text(answer: BidAnswer, cause: BaseException | None) -> str:
    return answer.complaint if answer.complaint is not None else _no_answer(cause)


def _no_answer(cause: BaseException | None) -> str:
    return f"no answer: {type(cause).__name__ if cause else 'connection closed'}"
