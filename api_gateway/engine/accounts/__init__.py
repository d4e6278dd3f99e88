"""Spending limits across items: accounts, and leases of them in each shard."""
