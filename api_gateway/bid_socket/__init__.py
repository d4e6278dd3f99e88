"""Bids over one WebSocket: each message is a bid, and each is answered by a frame with the client's own id."""
