"""Many clients and rude ones, beside one that is timed."""
