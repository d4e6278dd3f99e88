"""The gateway: takes bids over HTTP and WebSockets, decides them in Redis, relays their events to JetStream."""
