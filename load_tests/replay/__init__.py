"""``bidding replay``: recorded auctions through the HTTP API."""
