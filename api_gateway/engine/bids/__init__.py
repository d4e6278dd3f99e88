"""Group commit: from the queue to the verdict."""
