"""The auction rules in ordinary Python: standard library only, no clock, no network."""
