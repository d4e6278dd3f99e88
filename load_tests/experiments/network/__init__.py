"""``bidding experiment network``: the ladder on a twin of a cloud, with smaller processors and a slower network."""
