"""A cluster of Redis: which node has which shard, and a client that asks the right ones (decision 0067)."""
