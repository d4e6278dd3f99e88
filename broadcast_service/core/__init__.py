"""Decides what viewers are shown, and when. Pure: no clock, no network."""
