"""Items and those who bid on them, over the HTTP API."""
