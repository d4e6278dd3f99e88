"""Traces of bids through the gateway: from the request to the entry's PubAck."""
