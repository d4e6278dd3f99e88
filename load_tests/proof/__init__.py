"""The proof: what clients, Redis, JetStream and PostgreSQL say about an item must be one story."""
