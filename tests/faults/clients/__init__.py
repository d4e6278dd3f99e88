"""Who uses the platform in a fault run, beside the bidders: what they send, and what they make of answers."""
