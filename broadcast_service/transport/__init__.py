"""How frames get to viewers: connections, and the protocols below ASGI."""
