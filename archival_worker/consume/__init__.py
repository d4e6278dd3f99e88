"""From JetStream into batches: the durable consumer and its loop."""
