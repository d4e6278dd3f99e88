"""Who is in the ring, and whether this node may rely on what it knows of that."""
