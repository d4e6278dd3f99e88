"""What breaks the parts, bids meanwhile, and keeps what happened."""
