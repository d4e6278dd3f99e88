"""The endpoints: WebSockets, event streams, probes."""
