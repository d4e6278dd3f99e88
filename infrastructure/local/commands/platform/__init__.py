"""The platform of this machine: it starts, stops, and says how it is."""
