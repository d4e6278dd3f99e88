"""What the endpoints work with: opened and closed by ``main.py``."""

from __future__ import annotations

from dataclasses import dataclass, field

from cache_node.archive_check import ArchiveCheck
from shared.archive_cache.changes import Changes
from shared.archive_cache.reads import CachedReads
from shared.http.metrics import Histogram
from shared.read_cache.cache import ReadCache
from shared.read_cache.membership.view import View
from shared.read_cache.ring import Node

GET_BOUNDS_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
"""Upper bounds of the histogram of gets, in seconds."""


@dataclass(slots=True)
class Context:
    """The open resources of one process. ``node`` and ``changes`` are None in a front end.

    ``statuses`` counts the answers to ``/api`` by their HTTP status.
    """

    node: Node | None
    cache: ReadCache
    reads: CachedReads
    archive: ArchiveCheck
    changes: Changes | None
    get_seconds: Histogram = field(default_factory=lambda: Histogram(*GET_BOUNDS_S))
    statuses: dict[int, int] = field(default_factory=dict)

    @property
    def is_keeping(self) -> bool | None:
        """Whether this node keeps and serves values now; None for a front end."""
        return self.changes.is_keeping and self.cache.is_telling if self.changes is not None else None

    @property
    def view(self) -> View | None:
        """The ring that this process relies on now."""
        return self.cache.cluster.view() if self.cache.cluster is not None else None
