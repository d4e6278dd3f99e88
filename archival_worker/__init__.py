"""The archive: takes events from JetStream into PostgreSQL in batches, and tells Redis what it need no longer keep."""
