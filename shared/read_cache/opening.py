"""The way in: a cache in one of three modes, and its groups.

::

    async with open_read_cache(settings, [GroupSpec("items", load_item)], node=node, nats=link) as cache:
        body = await cache["items"].get("a-lot")

*off*: every get is one question to the origin, bounded in number, and shared with nobody: a value is never older than
the get, so nobody has to tell the cache of changes. *local*: kept in this process; concurrent gets of a key are one
question. Whoever changes something calls ``remove`` after its commit, and a follower of the events does so for what
others change. *cluster*: likewise, and each key is kept by the node that owns it.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

from shared.read_cache.cache import GroupSpec, ReadCache
from shared.read_cache.groups.group import Shelf
from shared.read_cache.groups.hot import Mirrors
from shared.read_cache.groups.shedding import Gate
from shared.read_cache.ring import Node
from shared.read_cache.settings import Policy, ReadCacheSettings
from shared.read_cache.stats import Stats
from shared.read_cache.store.base import Store
from shared.read_cache.store.lru import LruStore
from shared.read_cache.store.tiny_lfu import TinyLfuStore

if TYPE_CHECKING:
    from shared.clients.nats import NatsLink

_MIRRORS_SHARE: Final = 1 / 8
_FLIGHTS_BESIDE_THE_GATE: Final = 1_000


@asynccontextmanager
async def open_read_cache(
    settings: ReadCacheSettings,
    groups: Sequence[GroupSpec],
    *,
    node: Node | None = None,
    nats: NatsLink | None = None,
) -> AsyncIterator[ReadCache]:
    """A cache while inside.

    In the mode ``cluster`` a node serves its peers, joins, and warms up, in the background; at the end it leaves the
    ring, answers what is under way, and stops. Nothing waits for a cluster that is not there.

    Args:
        node: who this is, for a node of a cluster; its address is where it listens, too. None for one that only reads.
        nats: for membership by JetStream. The caller closes it.

    Raises:
        ValueError: settings that do not fit together, with what to do.
        OSError: the node's address is taken.
    """
    gate = Gate(running_max=settings.read_cache_loads_max, waiting_max=settings.read_cache_waiting_max)
    shelf = _shelf_of(settings, gate, owns=node is not None)
    flights_max = settings.read_cache_loads_max + settings.read_cache_waiting_max + _FLIGHTS_BESIDE_THE_GATE
    cache = ReadCache(groups, shelf, flights_max=flights_max)
    try:
        if settings.read_cache != "cluster":
            yield cache
            return
        # Imported only where it is needed, because it imports gRPC.
        from shared.read_cache.joining import joined

        async with joined(cache, settings, node=node, nats=nats):
            yield cache
    finally:
        await cache.close()


def _store_of(policy: Policy, bytes_max: int) -> Store:
    return TinyLfuStore(bytes_max) if policy == "tinylfu" else LruStore(bytes_max)


def _shelf_of(settings: ReadCacheSettings, gate: Gate, *, owns: bool) -> Shelf:
    bytes_max, policy = settings.read_cache_bytes_max, settings.read_cache_policy
    if settings.read_cache == "off":
        return Shelf(gate, Stats(), None, shares_loads=False)
    if settings.read_cache == "local":
        return Shelf(gate, Stats(), _store_of(policy, bytes_max))
    if not owns:
        return Shelf(gate, Stats(), None, Mirrors(bytes_max))
    mirrored = int(bytes_max * _MIRRORS_SHARE)
    return Shelf(gate, Stats(), _store_of(policy, bytes_max - mirrored), Mirrors(mirrored))
