"""The gateway: takes bids over HTTP, decides them in Redis, relays their events to JetStream."""
