"""What a node does once it has joined: takes over from the others what they kept of the keys that are its own now.

It serves from the first moment on; until a key has been taken over, whoever asks for it costs a load. It is a member
before it takes anything over, so it is told of every removal from then on.
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
_TRIES: Final = 5
_AT_A_TIME: Final = 200
_KEYS_MAX: Final = 50_000


async def keep_warm(cache: ReadCache, cluster: Cluster) -> None:
    """Warm up whenever this process has come into the ring, until cancelled."""
    was_in = False
    lapses = -1
    while True:
        view = cluster.view()
        is_in = view is not None and view.here is not None
        if view is not None and is_in and (not was_in or cache.stats.lapses != lapses):
            lapses = cache.stats.lapses
            try:
                async with asyncio.timeout(WARM_UP_MAX_S):
                    taken = await _warm_up(cache, cluster, view)
            except TimeoutError:
                logger.warning("the warm-up was ended after %g s", WARM_UP_MAX_S)
            else:
                logger.info("warm: %d values of other nodes", taken)
        was_in = is_in
        await asyncio.sleep(_LOOK_S)


async def _warm_up(cache: ReadCache, cluster: Cluster, view: View) -> int:
    taken = 0
    others = [node.name for node in view.ring.nodes if node.name != view.here]
    for group in cache:
        counts = await asyncio.gather(*(_take_over(cache, cluster, view, group, name) for name in others))
        taken += sum(counts)
    return taken


async def _take_over(cache: ReadCache, cluster: Cluster, view: View, group: str, owner: str) -> int:
    """What one node kept of one group, the most lasting first; half of the store at most, so that others have room."""
    link, here = cluster.link(owner), view.ring.node(view.here or "")
    if link is None or here is None:
        return 0
    keys: list[str] = []
    for _ in range(_TRIES):
        try:
            keys = await link.keys_for(here, view.epoch, view.ring.fingerprint, group, _KEYS_MAX)
        except PeerFailed:
            return 0
        if keys:
            break
        # It may not have heard of the ring yet.
        await asyncio.sleep(_LOOK_S)
    taken = 0
    for at in range(0, len(keys), _AT_A_TIME):
        if cache.bytes_used > cache.bytes_max // 2 or cluster.view() is not view:
            break
        results = await asyncio.gather(*(cache[group].take_over(key, owner) for key in keys[at : at + _AT_A_TIME]))
        taken += sum(results)
    return taken
