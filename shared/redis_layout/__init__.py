"""The contract in Redis: what the services keep there, and read of each other."""
