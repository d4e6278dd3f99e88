"""``bidding experiment``: repeats the measurements of both reference reports; one file of results each."""
