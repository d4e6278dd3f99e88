"""Closed items that have left Redis: what the archive tells of them, and how one of them comes back."""
