"""What operators do to an item: pause, resume, cancel, and strike a bid. Each is one audited, sequenced event."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from redis.exceptions import RedisError

from api_gateway.engine.bids.voids import Voids
from api_gateway.engine.item_scripts import ItemScripts, Transition
from api_gateway.engine.items import Items
from shared import names
from shared.domain.errors import ItemNotFound, Unavailable
from shared.redis_layout.item_hash import ItemState


class Operations:
    """Runs operations; the item's new state is the answer."""

    def __init__(self, scripts: ItemScripts, items: Items, voids: Voids, *, on_outbox: Callable[[str], None]) -> None:
        self._scripts = scripts
        self._items = items
        self._voids = voids
        self._on_outbox = on_outbox

    async def transition(self, name: Transition, item_id: str, *, reason: str, by: str) -> ItemState:
        """Pause, resume or cancel.

        Raises:
            ItemNotFound, StateConflict, Unavailable.
        """
        await self._ask(item_id, self._scripts.transition(name, item_id, reason=reason, by=by))
        self._on_outbox(names.shard_of(item_id))
        return await self._items.get(item_id, may_open=False)

    async def void(self, item_id: str, bid_id: str, *, reason: str, by: str) -> ItemState:
        """Strike a bid: the item becomes what its other accepted bids make it.

        Raises:
            ItemNotFound, BidNotFound, BidStruck, StateConflict, Unavailable.
        """
        await self._ask(item_id, self._voids.strike(item_id, bid_id, reason=reason, by=by))
        self._on_outbox(names.shard_of(item_id))
        return await self._items.get(item_id, may_open=False)

    async def _ask(self, item_id: str, call: Awaitable[Any]) -> Any:
        try:
            return await call
        except ItemNotFound:
            # Redis does not have it. This finds out whether it ever had.
            return await self._items.absent(item_id)
        except (RedisError, OSError, TimeoutError) as error:
            raise Unavailable(f"Redis cannot be asked: {error}; look at the item's status") from error
