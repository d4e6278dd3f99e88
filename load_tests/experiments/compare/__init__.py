"""``bidding experiment compare``: a report from files of results, and from nothing else."""
