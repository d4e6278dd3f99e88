"""What the users of this process are told: made from the command line before the first of them exists."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field

from load_tests.generator.tally import Tally


@dataclass(slots=True)
class RunSettings:
    """One run as the users of one process see it.

    ``pace_s`` is 0 in a closed run, where a user bids again as soon as the answer is there (and ``think_s`` has
    passed); in an open one each user has a bid due every ``pace_s`` seconds, however slow the answers are.
    ``feed_url`` is empty where the live feed was not named.
    """

    item_ids: list[str] = field(default_factory=list)
    tag: str = "run"
    process: int = 0
    bid_weight: int = 9
    look_weight: int = 1
    spread_minor: int = 100
    exponent: int = 2
    think_s: float = 0.0
    pace_s: float = 0.0
    timeout_s: float = 10.0
    feed_url: str = ""
    tally: Tally = field(default_factory=lambda: Tally([]))
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def next_user_id(self) -> str:
        """The id of the next user: no other user of the run has it, in whatever process."""
        return f"{self.tag}-user-{self.process}-{next(self.numbers)}"


RUN = RunSettings()
"""The settings of this process. The hooks set the fields when a test starts."""
