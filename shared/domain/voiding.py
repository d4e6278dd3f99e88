"""What remains of an auction when a bid is struck.

A void strikes the bid and the automatic bid that answered it. The price falls back to the highest bid that remains, and
whoever led with it leads; the bidder's hidden maximum goes with the bid. This is the only way a price may fall, and it
is always an event of its own. After the close nobody is promoted: the highest remaining bid is offered the item.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from shared.domain.auction import Terms


@dataclass(frozen=True, slots=True)
class StandingBid:
    """An accepted bid that is not struck. ``leader`` is who led right after it (another's maximum may have beaten
    it)."""

    seq: int
    bid_id: str
    user_id: str
    amount: int
    leader: str
    is_automatic: bool


@dataclass(frozen=True, slots=True)
class AfterVoid:
    """The public part of the new state; ``leader`` is None where no bid remains."""

    price: int
    leader: str | None
    runner_up: int
    struck_people: int


def answers(bid_id: str) -> str:
    """The id of the automatic bid that answered a bid."""
    return f"{bid_id}/proxy"


def without(terms: Terms, bids: Iterable[StandingBid], bid_id: str) -> AfterVoid:
    """What remains of ``bids`` (in any order, one of them ``bid_id``) without that bid.

    Raises:
        KeyError: no standing bid of this id.
    """
    standing = {bid.bid_id: bid for bid in bids}
    struck = standing.pop(bid_id)
    standing.pop(answers(bid_id), None)
    remaining = sorted(standing.values(), key=lambda bid: bid.amount, reverse=True)
    struck_people = 0 if struck.is_automatic else 1
    if not remaining:
        return AfterVoid(terms.start_price, None, 0, struck_people)
    top = remaining[0]
    # On a tie the earlier maximum led, unless that maximum came with the bid that is struck.
    leader = top.user_id if top.leader == struck.user_id else top.leader
    runner_up = next((bid.amount for bid in remaining if bid.user_id != leader), 0)
    return AfterVoid(top.amount, leader, runner_up, struck_people)
