"""What the documents promise, as data of tests."""
