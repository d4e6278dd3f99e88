"""Viewers of the live feed, who only watch. ``--feed-url`` names the feed.

Locust's table shows how long after its decision each bid arrived. For crowds of thousands, ``bidding experiment
fanout`` has viewers that cost less.
"""

from __future__ import annotations

from locust import User, task
from locust.exception import StopUser
from typing_extensions import override

from load_tests.generator.users import hooks as hooks
from load_tests.generator.users.feed import Watch
from load_tests.generator.users.settings import RUN


class Viewer(User):
    """Watches one item for the whole run."""

    @override
    def on_start(self) -> None:
        """Choose an item."""
        if not RUN.feed_url:
            raise StopUser("--feed-url is missing")
        number = next(RUN.numbers)
        self._watch = Watch(self.environment, RUN.feed_url, RUN.item_ids[number % len(RUN.item_ids)])

    @task
    def watch(self) -> None:
        """Wait for one frame."""
        self._watch.frame(timeout_s=1.0)

    @override
    def on_stop(self) -> None:
        """Hang up."""
        self._watch.close()
