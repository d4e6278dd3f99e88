"""Brings rulings for all items to all shards, also those whose gateway ended half-way.

The gateway that makes a ruling copies it at once, so it holds everywhere when the call returns. This task looks after
the rest. A ruling is among what is spread until it was copied to all shards in a pass that began after it was archived:

1. A ruling is made in shard A, and copied to B. It is not archived yet.
2. B is lost, and rebuilt from the archive: without it.
3. The ruling is archived. The next pass copies it to B again.

A pass that meets a lost or closed shard does not count. A gateway looks after the shards whose relay lease it holds;
the lease is not needed for safety.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection
from typing import Final

from redis.exceptions import RedisError

from api_gateway.engine.rulings.scripts import Made, Pending, RulingScripts, Settlement
from shared.crash_points import crash_point
from shared.domain.errors import Unavailable
from shared.pacing.backoff import Backoff
from shared.redis_layout.rulings import HouseRuling, home_of

logger = logging.getLogger(__name__)

_PER_LOOK: Final = 100
_LOOK_S: Final = 1.0
_BACKOFF_MAX_S: Final = 10.0


class Spreader:
    """Copies rulings; a gateway has one."""

    def __init__(
        self,
        scripts: RulingScripts,
        *,
        owned_shards: Callable[[], Collection[str]],
        look_after: Callable[[str, str], Awaitable[None]],
        look_s: float = _LOOK_S,
    ) -> None:
        """
        Args:
            look_after: awaited with the bidder and the currency of an account that all shards have to know.
            look_s: seconds between looks at what is to be spread.
        """
        self._scripts = scripts
        self._look_after = look_after
        self._owned_shards = owned_shards
        self._look_s = look_s

    async def spread(self, user_id: str, made: Made) -> bool:
        """Copy a ruling that was just made. Returns whether all shards have it now; if not, :meth:`run` goes on with
        it.

        Raises:
            RedisError, OSError, TimeoutError: not known; :meth:`run` goes on with it.
        """
        crash_point("rulings.made")
        if not made.value:
            return True
        return bool(await self._scripts.copy(home_of(user_id), {made.field: made.value}))

    async def run(self) -> None:
        """Look until cancelled; while Redis is away, look again later."""
        backoff = Backoff(first_s=2 * self._look_s, most_s=_BACKOFF_MAX_S)
        while True:
            try:
                await self.look()
                backoff.succeeded()
                await asyncio.sleep(self._look_s)
            except (RedisError, OSError, TimeoutError) as error:
                if not backoff.failures:
                    logger.warning("rulings: %s: %s", type(error).__name__, error)
                await asyncio.sleep(backoff.failed())

    async def look(self) -> None:
        """Look over the owned shards once.

        Raises:
            RedisError, OSError, TimeoutError: Redis cannot be asked.
        """
        shards = sorted(self._owned_shards())
        if not shards:
            return
        for shard, found in (await self._scripts.pending(shards, count=_PER_LOOK)).items():
            pending = [one for one in found if one.account is None]
            await self._spread(shard, [one for one in pending if not one.is_to_be_forgotten])
            await self._forget(shard, [one for one in pending if one.is_to_be_forgotten])
            for one in found:
                if one.account is not None:
                    await self._open(*one.account)

    async def _open(self, user_id: str, currency: str) -> None:
        try:
            await self._look_after(user_id, currency)
        except Unavailable as error:
            logger.info("the account of %s in %s is not open yet: %s", user_id, currency, error)

    async def _spread(self, shard: str, pending: Collection[Pending]) -> None:
        values = {one.field: one.value for one in pending if one.value is not None}
        copied = await self._scripts.copy(shard, values) if values else set()
        for one in pending:
            settlement: Settlement = "again"
            if one.value is None:
                settlement = "done"  # its making failed half-way: there is nothing to spread
            elif one.field in copied and one.is_archived:
                ruling = HouseRuling.decode(one.value.encode())
                settlement = "done" if ruling.approved or ruling.blocked else "taken_back"
            await self._scripts.settle(shard, one.field, one.value or "", settlement)

    async def _forget(self, shard: str, pending: Collection[Pending]) -> None:
        """Forget a ruling that was taken back long ago and was not made again."""
        values = {
            one.field: one.value
            for one in pending
            if one.value is not None and one.value.startswith("|") and one.is_archived
        }
        forgotten = await self._scripts.copy(shard, values, forget=True) if values else set()
        for one in pending:
            if one.field in forgotten or one.field not in values:
                await self._scripts.settle(shard, one.field, values.get(one.field, ""), "forgotten")
