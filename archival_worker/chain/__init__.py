"""The chain of hashes over the archive, its audit, and exports of closed items."""
