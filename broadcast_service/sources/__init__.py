"""The feed's sources: events from NATS JetStream; snapshots and recent events from Redis, or from the archive."""
