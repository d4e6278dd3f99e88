"""What operators do to an item: pause, resume, move the end, cancel, and strike a bid.

Each is one audited, sequenced event.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

from redis.exceptions import RedisError

from api_gateway.engine.bids.covered_voids import Strikes
from api_gateway.engine.closed.returns import Returns
from api_gateway.engine.item_scripts import ItemScripts, Transition
from api_gateway.engine.items import Items
from api_gateway.reads.archive import Archive
from shared import names
from shared.clients.redis import told_of
from shared.domain.auction import Status
from shared.domain.errors import BidNotFound, BidStruck, ItemNotFound, StateConflict, Unavailable
from shared.redis_layout.end_moves import LaterEnd
from shared.redis_layout.item_hash import ItemState

_RETURNS: Final = 3
"""How often an item is brought back into Redis for one void."""
WITHIN_S: Final = 50.0
"""The bound of one void, below the minute after which a load balancer gives up a silent request."""


class Operations:
    """Runs operations; the item's new state is the answer."""

    def __init__(
        self,
        scripts: ItemScripts,
        items: Items,
        voids: Strikes,
        archive: Archive,
        returns: Returns,
        *,
        on_outbox: Callable[[str], None],
        within_s: float = WITHIN_S,
    ) -> None:
        """``within_s``: of one void, with all that it waits for."""
        self._within_s = within_s
        self._scripts = scripts
        self._items = items
        self._voids = voids
        self._archive = archive
        self._returns = returns
        self._on_outbox = on_outbox

    async def transition(self, name: Transition, item_id: str, *, reason: str, by: str) -> ItemState:
        """Pause, resume or cancel.

        Raises:
            ItemNotFound, StateConflict, Unavailable.
        """
        try:
            await _of_redis(self._scripts.transition(name, item_id, reason=reason, by=by))
        except ItemNotFound:
            left = await self._left(item_id)
            raise StateConflict(item_id, left.state.status.value, name) from None
        self._on_outbox(names.shard_of(item_id))
        return await self._items.get(item_id, may_open=False)

    async def extend(self, item_id: str, to: LaterEnd, *, reason: str, by: str) -> ItemState:
        """Move the end later.

        Raises:
            ItemNotFound, StateConflict, EndStays, KeyReused, Unavailable.
        """
        try:
            await _of_redis(self._scripts.extend(item_id, to, reason=reason, by=by))
        except ItemNotFound:
            left = await self._left(item_id)
            raise StateConflict(item_id, left.state.status.value, "extend") from None
        self._on_outbox(names.shard_of(item_id))
        return await self._items.get(item_id, may_open=False)

    async def void(self, item_id: str, bid_id: str, *, reason: str, by: str) -> ItemState:
        """Strike a bid: the item becomes what its other accepted bids make it.

        Raises:
            ItemNotFound, BidNotFound, BidStruck, LeadLacksCredit, StateConflict, Unavailable.
            HistoryRetired: the bids of the item are in its export alone, and none can be struck any more.
        """
        try:
            async with asyncio.timeout(self._within_s):
                await self._strike(item_id, bid_id, reason=reason, by=by)
        except TimeoutError:
            raise Unavailable("the void took too long; look at the item, and try again", retry_after_s=5) from None
        self._on_outbox(names.shard_of(item_id))
        return await self._items.get(item_id, may_open=False)

    async def _strike(self, item_id: str, bid_id: str, *, reason: str, by: str) -> None:
        for _ in range(_RETURNS):
            try:
                await _of_redis(self._voids.strike(item_id, bid_id, reason=reason, by=by))
                return
            except ItemNotFound:
                await self._bring_back(item_id, bid_id)
        raise Unavailable("the item was closed and leaves Redis again and again; try again", retry_after_s=5)

    async def _bring_back(self, item_id: str, bid_id: str) -> None:
        """Bring the item, which has left Redis, back for a void; unless the archive can tell that the void is not
        possible."""
        left = await self._left(item_id)
        if left.state.status is Status.CANCELLED:
            raise StateConflict(item_id, left.state.status.value, "void")
        if (retired := await self._archive.retired(item_id)) is not None:
            raise retired.error(item_id)
        bid = await self._archive.accepted_bid(item_id, bid_id)
        if bid is None:
            raise BidNotFound(item_id, bid_id)
        if bid.is_struck:
            raise BidStruck(item_id, bid_id)
        await self._returns.bring_back(item_id)

    async def _left(self, item_id: str) -> ItemState:
        """The item, which Redis does not have: it has left, or the error says what became of it."""
        return await self._items.left(item_id) or await self._items.absent(item_id)


async def _of_redis(call: Awaitable[Any]) -> Any:
    try:
        return await call
    except (RedisError, OSError, TimeoutError) as error:
        raise Unavailable(f"Redis cannot be asked: {told_of(error)}; look at the item's status") from error
