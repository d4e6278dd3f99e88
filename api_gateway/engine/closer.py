"""The closer: opens and closes items on time.

It only looks at which items are due and calls the script; what is due is decided inside the script, by Redis TIME, so
the close happens exactly once however many closers call it, and also after downtime. A gateway looks after the shards
whose relay lease it holds, which spreads the work; the lease is not needed for safety.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Callable, Collection, Sequence

from redis.exceptions import RedisError, ResponseError

from api_gateway.engine.item_scripts import ItemScripts
from shared.domain.errors import BiddingError
from shared.pacing.backoff import Backoff

logger = logging.getLogger(__name__)

_ITEMS_PER_LOOK = 100
_STUCK_MAX = 1_000
_STUCK_PAUSE_S = 1.0
_EXAMPLES = 5
_TELL_EVERY_S = 10.0
_BACKOFF_MAX_S = 5.0


class Closer:
    """Calls ``advance.lua`` for every item that is due on the shards of this gateway."""

    def __init__(
        self,
        scripts: ItemScripts,
        *,
        owned_shards: Callable[[], Collection[str]],
        on_outbox: Callable[[str], None],
        look_s: float = 0.1,
    ) -> None:
        """``look_s``: seconds between looks at the deadlines, and so the most by which an idle gateway opens or closes
        late."""
        self._scripts = scripts
        self._owned_shards = owned_shards
        self._on_outbox = on_outbox
        self._look_s = look_s
        # Items that are due and cannot be advanced, with the time of their next try. So they are not tried ten times a
        # second, and do not block those behind them. And shards that cannot be asked what is due.
        self._stuck: dict[str, float] = {}
        self._stuck_shards: dict[str, float] = {}
        self._untold: dict[str, Exception] = {}
        self._tell_at_s = 0.0
        self.advanced_total = 0

    @property
    def stuck(self) -> int:
        """Items that are due and cannot be opened or closed, and shards whose items are not known to be due; up to
        1,000 and 64."""
        return len(self._stuck) + len(self._stuck_shards)

    async def run(self) -> None:
        """Look until cancelled; while Redis is away, look again later."""
        backoff = Backoff(first_s=2 * self._look_s, most_s=_BACKOFF_MAX_S)
        while True:
            try:
                more = await self.look()
                backoff.succeeded()
            except (RedisError, OSError, TimeoutError) as error:
                if not backoff.failures:
                    logger.warning("closer: %s: %s", type(error).__name__, error)
                await asyncio.sleep(backoff.failed())
                continue
            if not more:
                await asyncio.sleep(self._look_s)

    async def look(self) -> bool:
        """Look over the owned shards once. Returns whether more items may be due.

        Raises:
            RedisError, OSError, TimeoutError: Redis cannot be asked.
        """
        now_s = asyncio.get_running_loop().time()
        owned = sorted(self._owned_shards())
        self._stuck_shards = {shard: at_s for shard, at_s in self._stuck_shards.items() if shard in owned}
        stuck_shards = {shard: at_s for shard, at_s in self._stuck_shards.items() if at_s > now_s}
        shards = [shard for shard in owned if shard not in stuck_shards]
        if not shards:
            return False
        count = _ITEMS_PER_LOOK + len(self._stuck)
        due: dict[str, list[str]] = {}
        for shard, found in (await self._scripts.due(shards, count=count)).items():
            if not isinstance(found, ResponseError):
                due[shard] = found
                continue
            stuck_shards[shard] = now_s + _STUCK_PAUSE_S
            if shard not in self._stuck_shards:
                self._untold[f"all of shard {shard}"] = found
        self._stuck_shards = stuck_shards
        still_stuck: dict[str, float] = {}
        for shard, item_ids in due.items():
            ready = [item_id for item_id in item_ids if self._stuck.get(item_id, 0.0) <= now_s]
            if ready:
                still_stuck |= dict.fromkeys(await self._advance(shard, ready), now_s + _STUCK_PAUSE_S)
            waiting = (item_id for item_id in item_ids if self._stuck.get(item_id, 0.0) > now_s)
            still_stuck |= {item_id: self._stuck[item_id] for item_id in waiting}
        self._stuck = dict(itertools.islice(still_stuck.items(), _STUCK_MAX))
        self._tell(now_s)
        return not still_stuck and any(len(item_ids) == count for item_ids in due.values())

    async def _advance(self, shard: str, item_ids: Sequence[str]) -> list[str]:
        """Advance the items; those that could not be stay due and are tried again."""
        stuck: list[str] = []
        for item_id, result in zip(item_ids, await self._scripts.advance(item_ids), strict=True):
            if isinstance(result, BiddingError | ResponseError):
                # The item or its shard is lost, or the outbox is full, or its own script fails.
                if item_id not in self._stuck and len(self._untold) < _STUCK_MAX:
                    self._untold[item_id] = result
                stuck.append(item_id)
            elif result:
                self.advanced_total += 1
                self._on_outbox(shard)
        return stuck

    def _tell(self, now_s: float) -> None:
        """Log what is stuck, in one line, and not more often than every few seconds."""
        if not self._untold or now_s < self._tell_at_s:
            return
        examples = [f"{name}: {error}" for name, error in itertools.islice(self._untold.items(), _EXAMPLES)]
        logger.warning(
            "closer: %d items or shards cannot be opened or closed and are tried again, such as %s",
            len(self._untold),
            "; ".join(examples),
        )
        self._untold.clear()
        self._tell_at_s = now_s + _TELL_EVERY_S
