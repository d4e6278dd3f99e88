"""``bidding experiment resilience``: one part fails while people bid, watch and read."""
