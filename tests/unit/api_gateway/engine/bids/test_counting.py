"""What the script is told of rows, where the log in Redis does not reach back to the first bid."""

from __future__ import annotations

import pytest

from api_gateway.engine.bids.counting import Count
from shared.domain.auction import Terms
from shared.domain.bidding import Bid
from shared.domain.voiding import LogEntry

STRUCK = LogEntry(1, 1, Bid("of-zed", "zed", None, 5), "bid", 5, row_stands=True)
HIGHEST, LOWEST_ABOVE = 9, 16  # of ARGV[7..] in void.lua


@pytest.mark.parametrize(
    ("rows", "price", "highest", "above"),
    [
        ([], 1, "", ""),
        ([10], 10, "10", ""),
        ([10, 20], 20, "20", ""),
        # Up to 20 alone, which the next one shows as the answer of a maximum that is struck.
        ([10, 20, 30], 11, "10", "20"),
    ],
)
def test_the_rows_beside_the_price(rows: list[int], price: int, highest: str, above: str) -> None:
    """A row at the very price is the highest up to it: taken for less, it would have the bids counted once more."""
    count = Count(Terms("item", 0, start_price=1), STRUCK)
    hidden = len(rows) == 3
    for position, amount in enumerate(rows, start=2):
        asked = Bid(f"b-{position}", "ann" if amount < 20 else f"u-{amount}", amount)
        if hidden and amount >= 20:
            asked = Bid(f"b-{position}", "bob", None, amount)
        count.add(LogEntry(position, position, asked, "bid", amount, row_stands=True))
    found = count.arguments(0, 1)
    assert (count.replay.state.price, found[HIGHEST], found[LOWEST_ABOVE]) == (price, highest, above)
