"""Many bidders after few items: every bid competes for the same price.

The hard case for a bidding platform: all writes meet in one Redis key, and every bidder acts on a price that
is already stale.
"""

from __future__ import annotations

from locust import task

from load_tests.generator.users import hooks as hooks
from load_tests.generator.users.base import BiddingUser
from load_tests.generator.users.settings import RUN


class ContendedBidder(BiddingUser):
    """Bids on items drawn at random from the run's few, and learns the price from the answers."""

    @task
    def act(self) -> None:
        """Look or bid, by the weights; a bidder who leads or does not know the price looks in any case."""
        due_s = self.due()
        item_id = self.rng.choice(RUN.item_ids)
        amount = self.bidder.next_amount(item_id)
        if amount is None or self.rng.randrange(RUN.bid_weight + RUN.look_weight) < RUN.look_weight:
            self.look(item_id)
        else:
            self.bid(item_id, amount, due_s)
