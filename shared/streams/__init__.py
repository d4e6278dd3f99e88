"""The event stream for whoever reads it: an ephemeral follower, a durable puller, and a reader of what there is."""
