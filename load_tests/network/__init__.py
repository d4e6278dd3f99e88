"""A network that is slower, and processors that are smaller, than those of this machine."""
