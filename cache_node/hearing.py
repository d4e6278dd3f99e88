"""How far a node has heard of changes: of those that events tell of, and of recoveries, which no event tells of."""

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
        """What this node tells others with its values."""
        return Heard(self._changes.heard, self._rebuilds.epochs, self._changes.stream)

    def needed(self) -> Heard:
        """What it asks of others before it takes over theirs."""
        return Heard(self._changes.needed, self._rebuilds.epochs, self._changes.stream)
