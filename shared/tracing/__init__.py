"""Traces of bids, sent by OTLP where an endpoint is set. Without one nothing here is called, and nothing of
OpenTelemetry is loaded."""
