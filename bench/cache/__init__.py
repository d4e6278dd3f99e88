"""The read cache: gets per second, hit rates, questions left to PostgreSQL."""
