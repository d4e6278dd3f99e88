"""``bidding experiment contention``: more and more bidders on one item."""
