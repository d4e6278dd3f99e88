"""What a bidder of any scenario can do: bid, look, and keep the books."""

from __future__ import annotations

import itertools
import time
from random import Random

from locust import FastHttpUser
from typing_extensions import override

from load_tests.generator.answers import BidAnswer, Fate, read_bid_answer, read_item
from load_tests.generator.bidder import Bidder
from load_tests.generator.ledger import Entry
from load_tests.generator.users.settings import RUN
from shared.domain.money import format_amount

BID_NAME = "/api/v1/items/[id]/bid"
LOOK_NAME = "/api/v1/items/[id]"
_HEADERS = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
# What a user waits after an error; without it, users of a platform that is away would spin.
_BACK_OFF_S = 0.25


class BiddingUser(FastHttpUser):
    """One bidder with one user id for the whole run.

    For Locust an accepted bid (201) and a refused one (200, ``success: false``) are both successes: losing to
    a faster bidder is what a contended item is about. Everything else is a failure.

    In an open run each action has a time at which it is due, and the response time in the books counts from there: a
    bid that had to wait for the answer to the one before it has waited. Locust's own tables count from the sending.
    """

    # Load goes to the target and nowhere else: no redirect is followed.
    abstract = True
    connection_timeout = 5.0

    @override
    def __init__(self, environment: object) -> None:
        self.network_timeout = RUN.timeout_s
        super().__init__(environment)

    @override
    def on_start(self) -> None:
        """Take a user id. Items are looked at before the first bid on them."""
        user_id = RUN.next_user_id()
        self.rng = Random(f"{RUN.tag}:{user_id}")
        self.bidder = Bidder(user_id, RUN.spread_minor, self.rng)
        self._bids = itertools.count(1)
        # Spread over one interval, so that users who begin together are not due together.
        self._due_s = time.monotonic() + self.rng.random() * RUN.pace_s

    @override
    def wait_time(self) -> float:
        """The pause between two actions, in seconds; an open run has its own pace."""
        return 0.0 if RUN.pace_s else RUN.think_s

    def due(self) -> float:
        """When the next action is due, by the monotonic clock; waits until then. Now, in a closed run."""
        now = time.monotonic()
        if not RUN.pace_s:
            return now
        due_s = self._due_s
        self._due_s += RUN.pace_s
        if due_s > now:
            time.sleep(due_s - now)
        return due_s

    def bid(self, item_id: str, amount: int, due_s: float | None = None) -> BidAnswer:
        """Bid ``amount`` minor units; ``due_s`` is when that was due, now by default."""
        began_s = time.monotonic() if due_s is None else due_s
        user_id = self.bidder.user_id
        bid_id = f"{user_id}-{next(self._bids)}"
        price = format_amount(amount, RUN.exponent)
        body = f'{{"user_id":"{user_id}","amount":{price},"bid_id":"{bid_id}"}}'
        RUN.tally.sent(item_id, Entry(bid_id, user_id, amount))
        with self.client.post(
            f"/api/v1/items/{item_id}/bid",
            data=body,
            headers=_HEADERS,
            name=BID_NAME,
            catch_response=True,
            allow_redirects=False,
        ) as response:
            answer = read_bid_answer(response.status_code, response.content, RUN.exponent)
            RUN.tally.answered(bid_id, answer, (time.monotonic() - began_s) * 1_000)
            self.bidder.saw_answer(item_id, answer)
            if answer.fate in (Fate.ACCEPTED, Fate.REFUSED):
                response.success()
            else:
                response.failure(_failure_text(answer, response.error))
        if answer.fate in (Fate.UNKNOWN, Fate.FAILED):
            time.sleep(_BACK_OFF_S)
        return answer

    def look(self, item_id: str) -> bool:
        """Look at the item, and remember it; False where that failed."""
        with self.client.get(
            f"/api/v1/items/{item_id}", headers=_HEADERS, name=LOOK_NAME, catch_response=True, allow_redirects=False
        ) as response:
            if response.status_code == 0:
                RUN.tally.looked(item_id, answered=False)
                response.failure(_no_answer(response.error))
                failure: str | None = "no answer"
            else:
                failure = self._learn(response.status_code, response.content or b"")
                RUN.tally.looked(item_id, failure)
                if failure is None:
                    response.success()
                else:
                    response.failure(failure)
        if failure is not None:
            time.sleep(_BACK_OFF_S)
        return failure is None

    def _learn(self, status: int, body: bytes) -> str | None:
        """Remember an item that was shown; returns what is wrong with the answer, or None."""
        if status != 200:
            return f"HTTP {status}"
        try:
            self.bidder.saw_item(read_item(body, RUN.exponent))
        except ValueError as error:
            return str(error)
        return None


def _failure_text(answer: BidAnswer, cause: BaseException | None) -> str:
    return answer.complaint if answer.complaint is not None else _no_answer(cause)


def _no_answer(cause: BaseException | None) -> str:
    return f"no answer: {type(cause).__name__ if cause else 'connection closed'}"
