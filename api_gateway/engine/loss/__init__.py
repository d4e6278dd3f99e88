"""What Redis may have lost: who knows it, and which shards take no bids."""
