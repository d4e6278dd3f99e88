"""A client of the live feed."""
