"""``bidding experiment environment``: eight properties of a place where the platform runs."""
