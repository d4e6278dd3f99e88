"""What a node does once it has joined: takes over from the others what they kept of the keys that are its own now.

It serves from the first moment on; until a key has been taken over, a get of it costs a load. It is a member before it
takes anything over, so it is told of every removal from then on.
"""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Final

from shared.read_cache.errors import PeerFailed

if TYPE_CHECKING:
    from shared.read_cache.cache import ReadCache
    from shared.read_cache.cluster import Cluster
    from shared.read_cache.membership.view import View

logger = logging.getLogger(__name__)

WARM_UP_MAX_S: Final = 10.0
_LOOK_S: Final = 0.1
_OTHER_RING_TRIES: Final = 30
"""Usually the length of a lease: after that the other node knows this ring, or has no ring."""
_AT_A_TIME: Final = 200
_KEYS_MAX: Final = 50_000


async def keep_warm(cache: ReadCache, cluster: Cluster) -> None:
    """Warm up whenever this process has come into the ring, or may keep values again, until cancelled."""
    was_in = False
    lapses = -1
    while True:
        view = cluster.view()
        is_in = view is not None and view.here is not None and cache.is_keeping
        if view is not None and is_in and (not was_in or cache.stats.lapses != lapses):
            lapses = cache.stats.lapses
            try:
                async with asyncio.timeout(WARM_UP_MAX_S):
                    taken = await _warm_up_for_good(cache, cluster, view)
            except TimeoutError:
                logger.warning("the warm-up was ended after %g s", WARM_UP_MAX_S)
            else:
                logger.info("warm: %d values of other nodes", taken)
        was_in = is_in
        await asyncio.sleep(_LOOK_S)


async def _warm_up_for_good(cache: ReadCache, cluster: Cluster, view: View) -> int:
    """Where the ring changes meanwhile, as when two nodes join at a time, begin again with what is left."""
    taken = 0
    now: View | None = view
    while now is not None and now.here is not None:
        view = now
        taken += await _warm_up(cache, cluster, view)
        now = cluster.view()
        if now is view:
            break
    return taken


async def _warm_up(cache: ReadCache, cluster: Cluster, view: View) -> int:
    taken = 0
    others = [node.name for node in view.ring.nodes if node.name != view.here]
    for group in cache:
        counts = await asyncio.gather(*(_take_over(cache, cluster, view, group, name) for name in others))
        taken += sum(counts)
    return taken


async def _take_over(cache: ReadCache, cluster: Cluster, view: View, group: str, owner: str) -> int:
    """Take over what one node kept of one group, beginning with what would stay longest; at most half of the store, so
    that the values of other nodes have room."""
    link, here = cluster.link(owner), view.ring.node(view.here or "")
    if link is None or here is None:
        return 0
    keys: list[str] = []
    for _ in range(_OTHER_RING_TRIES):
        try:
            keys = await link.keys_for(here, view.epoch, view.ring.fingerprint, group, _KEYS_MAX)
            break
        except PeerFailed as error:
            if not error.other_ring or cluster.view() is not view:
                return 0
        # The other node has not heard of the ring yet.
        await asyncio.sleep(_LOOK_S)
    taken = 0
    for at in range(0, len(keys), _AT_A_TIME):
        if cache.bytes_live > cache.bytes_max // 2 or cluster.view() is not view:
            break
        results = await asyncio.gather(*(cache[group].take_over(key, owner) for key in keys[at : at + _AT_A_TIME]))
        taken += sum(results)
    return taken
