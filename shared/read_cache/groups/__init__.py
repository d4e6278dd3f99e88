"""A group: keys of one origin, what is kept of them, and who may ask the origin."""
