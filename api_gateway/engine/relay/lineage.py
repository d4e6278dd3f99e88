"""Within what an outbox's numbers are given out once.

A number alone names no entry. After a failover to a replica that lacks the newest entries, their numbers are given out
again, in the same epoch; after a rebuilding they begin at 1 again, in another epoch. So whoever remembers an entry over
an await remembers with it in which epoch of the shard, and by which run of Redis, it was given out.
"""

from __future__ import annotations

from typing import NamedTuple


class Lineage(NamedTuple):
    """A shard's outbox in one epoch, in one run of Redis.

    ``run`` is the ``run_id`` of the Redis that was admitted (``guard.py``); '' where nobody asked for it.
    """

    run: str
    epoch: int
