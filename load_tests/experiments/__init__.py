"""``bidding experiment``: what both reference reports measured, measured; one file of results each."""
