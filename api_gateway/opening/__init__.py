"""What the gateway opens, how the parts are joined, and in which order they are closed."""
