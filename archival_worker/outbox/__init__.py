"""What the archive tells the outbox: archived cursors, and entries that are missing."""
