"""The auction rules: standard library only, no clock, no network."""
