"""The relay: from the outbox to JetStream."""
