"""Where the feed's knowledge comes from: events from NATS JetStream, snapshots and recent events from Redis."""
