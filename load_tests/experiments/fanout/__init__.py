"""``bidding experiment fanout``: more and more viewers of one item."""
