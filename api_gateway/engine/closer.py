"""The closer: opens and closes items on time, by themselves.

It only looks at which items are due and calls the script; what is due is decided inside the script, by Redis TIME, so
the close happens exactly once however many closers call it, and also after downtime. A gateway looks after the shards
whose relay lease it holds, which spreads the work; the lease is not needed for safety.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Collection

from redis.exceptions import RedisError

from api_gateway.engine.scripts import ItemScripts
from shared import names
from shared.domain.errors import BiddingError

logger = logging.getLogger(__name__)

_ITEMS_PER_LOOK = 100
_BACKOFF_MAX_S = 5.0


class Closer:
    """Calls ``advance.lua`` for every item that is due on the shards of this gateway."""

    def __init__(
        self,
        scripts: ItemScripts,
        *,
        owned_shards: Callable[[], Collection[str]],
        on_outbox: Callable[[str, int], None],
        look_s: float = 0.1,
    ) -> None:
        """``look_s``: how often the deadlines are looked at, so how late an opening or a close may be at most when
        idle."""
        self._scripts = scripts
        self._owned_shards = owned_shards
        self._on_outbox = on_outbox
        self._look_s = look_s
        self.advanced_total = 0

    async def run(self) -> None:
        """Look until cancelled; while Redis is away, look again later."""
        failures = 0
        while True:
            try:
                more = await self.look()
                failures = 0
            except (RedisError, OSError, TimeoutError) as error:
                failures += 1
                if failures == 1:
                    logger.warning("closer: %s: %s", type(error).__name__, error)
                await asyncio.sleep(min(_BACKOFF_MAX_S, self._look_s * 2 ** min(failures, 8)) * random.uniform(0.5, 1))
                continue
            if not more:
                await asyncio.sleep(self._look_s)

    async def look(self) -> bool:
        """One look over the owned shards; whether some of them may have more that is due.

        Raises:
            RedisError, OSError, TimeoutError: Redis cannot be asked.
        """
        shards = sorted(self._owned_shards())
        if not shards:
            return False
        due = await self._scripts.due(shards, count=_ITEMS_PER_LOOK)
        stuck = False
        for shard, item_ids in due.items():
            for item_id in item_ids:
                stuck |= not await self._advance(shard, item_id)
        return any(len(item_ids) == _ITEMS_PER_LOOK for item_ids in due.values()) and not stuck

    async def _advance(self, shard: str, item_id: str) -> bool:
        try:
            entry = await self._scripts.advance(item_id)
        except BiddingError as error:
            # The item stays due and is tried again with the next look: its shard is lost, or its outbox is full.
            logger.warning("closer: item %s: %s", item_id, error)
            return False
        if entry:
            self.advanced_total += 1
            self._on_outbox(names.shard_of(item_id), entry)
        return True
