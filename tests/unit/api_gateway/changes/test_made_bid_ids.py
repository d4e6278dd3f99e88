"""Ids of bids that the client did not name."""

from __future__ import annotations

from api_gateway.hot_path import _made_bid_id
from shared import names


def test_ids_that_follow_each_other_have_nothing_in_common() -> None:
    """Two aliases on two items would be known for one bidder, whose bids came together."""
    made = [_made_bid_id() for _ in range(200)]
    assert len(set(made)) == len(made)
    assert all(names.is_made_bid_id(each) for each in made)
    # Of 19,900 pairs of 80 random bits none begins with the same 32, but once in 200,000 runs.
    beginnings = {each[: len(names.MADE_BID_ID_MARK) + 8] for each in made}
    assert len(beginnings) == len(made)
