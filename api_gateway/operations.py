"""What operators do to an item: pause, resume, cancel, and strike a bid. Each is one audited, sequenced event."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

from redis.exceptions import RedisError

from api_gateway.engine.items import Items
from api_gateway.engine.scripts import ItemScripts, Transition
from api_gateway.history import History
from shared import names
from shared.domain.errors import BidNotFound, ItemNotFound, Unavailable
from shared.domain.voiding import without
from shared.item_state import ItemState

_VOID_TRIES: Final = 20


class Operations:
    """Runs operations; the item's new state is the answer."""

    def __init__(
        self, scripts: ItemScripts, items: Items, history: History, *, on_outbox: Callable[[str, int], None]
    ) -> None:
        self._scripts = scripts
        self._items = items
        self._history = history
        self._on_outbox = on_outbox

    async def transition(self, name: Transition, item_id: str, *, reason: str, by: str) -> ItemState:
        """Pause, resume or cancel.

        Raises:
            ItemNotFound, StateConflict, Unavailable.
        """
        entry = await self._ask(item_id, self._scripts.transition(name, item_id, reason=reason, by=by))
        self._on_outbox(names.shard_of(item_id), entry)
        return await self._items.get(item_id, may_open=False)

    async def void(self, item_id: str, bid_id: str, *, reason: str, by: str) -> ItemState:
        """Strike a bid.

        What remains is worked out from the whole history and applied only if no event came in between; on a busy item
        that may take several tries.

        Raises:
            ItemNotFound, BidNotFound, StateConflict, Unavailable.
        """
        for _ in range(_VOID_TRIES):
            item = await self._items.get(item_id, may_open=False)
            standing = await self._history.standing_bids(item_id, bid_id)
            struck = next((bid for bid in standing if bid.bid_id == bid_id), None)
            if struck is None:
                raise BidNotFound(item_id, bid_id)
            after = without(item.terms, standing, bid_id)
            entry = await self._ask(
                item_id, self._scripts.void(item_id, struck, after, seq=item.state.seq, reason=reason, by=by)
            )
            if entry:
                self._on_outbox(names.shard_of(item_id), entry)
                return await self._items.get(item_id, may_open=False)
        raise Unavailable("the item is too busy right now; pause it first, then strike the bid")

    async def _ask(self, item_id: str, call: Awaitable[Any]) -> Any:
        try:
            return await call
        except ItemNotFound:
            # Redis does not have it. Whether it never had is another question.
            return await self._items.absent(item_id)
        except (RedisError, OSError, TimeoutError) as error:
            raise Unavailable(f"Redis cannot be asked: {error}; look at the item's status") from error
