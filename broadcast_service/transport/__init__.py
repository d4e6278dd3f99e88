"""Sends frames to viewers: connections, and the protocols below ASGI."""
