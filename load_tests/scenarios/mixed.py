"""An ordinary evening: people look at many items, think, and bid now and then on what they like.

The k-th item of the list is drawn 1/k as often as the first (Zipf), and pauses are exponential, as of people who do not
wait for each other.
"""

from __future__ import annotations

from itertools import accumulate
from typing import Final

from locust import task
from typing_extensions import override

from load_tests.generator.users import hooks as hooks
from load_tests.generator.users.base import BiddingUser
from load_tests.generator.users.settings import RUN

THINK_S: Final = 2.0
"""The mean pause where --think-ms names none."""
_LOOKS_PER_BID: Final = 4


class MixedBidder(BiddingUser):
    """Looks at items four times as often as they bid."""

    @override
    def wait_time(self) -> float:
        """An exponential pause around the mean, in seconds."""
        return 0.0 if RUN.pace_s else self.rng.expovariate(1 / (RUN.think_s or THINK_S))

    @task
    def act(self) -> None:
        """Look at an item, or bid on one."""
        due_s = self.due()
        (item_id,) = self.rng.choices(RUN.item_ids, cum_weights=self._weights())
        amount = self.bidder.next_amount(item_id)
        if amount is None or self.rng.randrange(_LOOKS_PER_BID + 1) < _LOOKS_PER_BID:
            self.look(item_id)
        else:
            self.bid(item_id, amount, due_s)

    def _weights(self) -> list[float]:
        count = len(RUN.item_ids)
        if len(_WEIGHTS) != count:
            _WEIGHTS[:] = accumulate(1 / rank for rank in range(1, count + 1))
        return _WEIGHTS


_WEIGHTS: list[float] = []
"""Cumulative weights of the items of this run, as ``random.choices`` takes them."""
