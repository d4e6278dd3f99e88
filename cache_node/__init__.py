"""The read cache as a service: nodes that own keys, and front ends that own none. ``python -m cache_node``."""
