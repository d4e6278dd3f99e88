"""How far a node has heard of changes: by events, and by questions about recoveries, of which no event tells."""

from __future__ import annotations

from cache_node.rebuilds import Rebuilds
from shared.archive_cache.changes import Changes
from shared.read_cache.remote import Heard


class Hearing:
    """For :meth:`shared.read_cache.cache.ReadCache.hear`."""

    def __init__(self, changes: Changes, rebuilds: Rebuilds) -> None:
        self._changes = changes
        self._rebuilds = rebuilds

    def heard(self) -> Heard:
        """What this node has heard: it goes out with its values."""
        return Heard(self._changes.heard, self._rebuilds.epochs, self._changes.stream)

    def needed(self) -> Heard:
        """What another node must have heard before this one takes over its values."""
        return Heard(self._changes.needed, self._rebuilds.epochs, self._changes.stream)
