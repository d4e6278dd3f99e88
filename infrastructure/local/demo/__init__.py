"""`bidding demo`: believable lots and simulated bidders, so that there is something to look at."""
