"""What we add to uvicorn's protocols: bounds, turns, and answers without ASGI."""
