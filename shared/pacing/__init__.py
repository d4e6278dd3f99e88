"""How fast and how often: pauses between attempts, tokens in buckets, seldom lines of a log, turns of an event loop."""
