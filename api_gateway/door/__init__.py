"""Checks of a request before anything is done for it: where it comes from, and how much its sender may ask for."""
