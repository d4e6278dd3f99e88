"""Bidders who watch: they see by the live feed that they were outbid, think, and bid again. ``--feed-url`` names it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final

from locust import task
from locust.exception import StopUser
from typing_extensions import override

from load_tests.generator.users import hooks as hooks
from load_tests.generator.users.base import BiddingUser
from load_tests.generator.users.feed import Watch
from load_tests.generator.users.settings import RUN

THINK_S: Final = 1.0
"""The mean time from seeing a rival's bid to one's own, where --think-ms names none."""


class WatchingBidder(BiddingUser):
    """Watches one item, and bids whenever somebody else leads."""

    @override
    def on_start(self) -> None:
        """Choose an item, and begin to watch it."""
        super().on_start()
        if not RUN.feed_url:
            raise StopUser("--feed-url is missing")
        self._item_id = self.rng.choice(RUN.item_ids)
        self._watch = Watch(self.environment, RUN.feed_url, self._item_id)

    @override
    def wait_time(self) -> float:
        """None: what happens on the feed gives the time."""
        return 0.0

    @task
    def answer_rivals(self) -> None:
        """Wait for a frame that shows another leader; think; look, as a page would, and bid."""
        frame = self._watch.frame(timeout_s=1.0)
        if frame is None or not self._has_rival(frame):
            return
        time.sleep(self.rng.expovariate(1 / (RUN.think_s or THINK_S)))
        if self.look(self._item_id):
            amount = self.bidder.next_amount(self._item_id)
            if amount is not None:
                self.bid(self._item_id, amount)

    def _has_rival(self, frame: Mapping[str, Any]) -> bool:
        if frame.get("type") not in ("bid", "state", "snapshot"):
            return False
        leader: object = frame.get("user_id", frame.get("highest_bidder_id"))
        return leader != self.bidder.user_id

    @override
    def on_stop(self) -> None:
        """Hang up."""
        self._watch.close()
