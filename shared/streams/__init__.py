"""Three ways to read the event stream: an ephemeral follower, a durable puller, and a reader of what it holds now."""
