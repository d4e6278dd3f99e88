"""A bidder who wants the item: what they know of it and what they bid next. Pure; the transport is Locust's.

A bidder learns the price from every answer, bids a little above the least that is needed, and does not outbid
themselves.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from load_tests.generator.answers import BidAnswer, Fate, ItemView
from shared.domain.money import MINOR_MAX


@dataclass(frozen=True, slots=True)
class Seen:
    """What a bidder knows of an item; amounts in minor units. It is stale as soon as somebody else bids."""

    current_bid: int
    min_next_bid: int
    leading: bool


class Bidder:
    """One bidder over any number of items.

    Args:
        user_id: as the platform knows them.
        spread_minor: how far above the least needed amount they go at most, in minor units, 0 or more.
            Bidders who act on the same stale price differ by it; with 0 all but one of them would always be
            refused.
        rng: source of their randomness.
    """

    def __init__(self, user_id: str, spread_minor: int, rng: Random) -> None:
        self.user_id = user_id
        self._spread_minor = spread_minor
        self._rng = rng
        self._seen: dict[str, Seen] = {}

    def next_amount(self, item_id: str) -> int | None:
        """The next bid in minor units, or None where the bidder first has to look: the price is not known, or
        they lead.
        """
        seen = self._seen.get(item_id)
        if seen is None or seen.leading:
            return None
        return min(seen.min_next_bid + self._rng.randint(0, self._spread_minor), MINOR_MAX)

    def saw_item(self, item: ItemView) -> None:
        """Learn from a look at the item."""
        leading = item.highest_bidder_id == self.user_id
        self._seen[item.item_id] = Seen(item.current_bid, item.min_next_bid, leading)

    def saw_answer(self, item_id: str, answer: BidAnswer) -> None:
        """Learn from the answer to an own bid; after anything but a verdict the bidder looks before bidding
        again.
        """
        if (
            answer.fate in (Fate.ACCEPTED, Fate.REFUSED)
            and answer.current_bid is not None
            and answer.min_next_bid is not None
        ):
            self._seen[item_id] = Seen(answer.current_bid, answer.min_next_bid, answer.leading)
        else:
            self._seen.pop(item_id, None)
