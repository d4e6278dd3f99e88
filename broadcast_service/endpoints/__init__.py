"""What a viewer may ask for: WebSockets, event streams, probes."""
