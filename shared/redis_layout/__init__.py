"""The contract in Redis: what each service keeps there for the others to read."""
