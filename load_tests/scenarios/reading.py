"""Bidders who read the price before each bid, as a page does for the person in front of it.

Each bid takes two requests, so half of the rate that Locust shows here are bids.
"""

from __future__ import annotations

from locust import task

from load_tests.generator.users import hooks as hooks
from load_tests.generator.users.base import BiddingUser
from load_tests.generator.users.settings import RUN


class ReadingBidder(BiddingUser):
    """Reads the price of an item, then bids on it unless they lead."""

    @task
    def read_then_bid(self) -> None:
        """One read, and one bid at the price that it showed."""
        self.due()
        item_id = self.rng.choice(RUN.item_ids)
        if not self.look(item_id):
            return
        amount = self.bidder.next_amount(item_id)
        if amount is not None:
            self.bid(item_id, amount)
