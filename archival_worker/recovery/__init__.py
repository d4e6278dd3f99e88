"""Rebuilds what Redis has lost."""
