"""What sellers and operators rule on bidders: approve, block, limit. A ruling decides the bids that come after it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from redis.exceptions import RedisError

from api_gateway.engine.accounts.accounts import OPENING_S, Accounts, Spending
from api_gateway.engine.accounts.scripts import AccountScripts
from api_gateway.engine.items import Items
from api_gateway.engine.rulings.scripts import OnAll, OnItem, Ruled, RulingScripts
from api_gateway.engine.rulings.spreader import Spreader
from shared import names
from shared.archive_reads.asking import Asking
from shared.archive_reads.item_rulings import item_ruling, item_rulings
from shared.clients.redis import told_of
from shared.domain.errors import ItemNotFound, StateConflict, Unavailable
from shared.redis_layout.rulings import HouseRuling, ItemRuling, home_of

Answer = TypeVar("Answer")


class BidderRulings:
    """Makes rulings and reads them. A ruling may be repeated: if it holds already, nothing is done."""

    def __init__(
        self,
        scripts: RulingScripts,
        spreader: Spreader,
        account_scripts: AccountScripts,
        accounts: Accounts,
        items: Items,
        asking: Asking,
        *,
        on_outbox: Callable[[str], None],
    ) -> None:
        self._scripts = scripts
        self._account_scripts = account_scripts
        self._accounts = accounts
        self._spreader = spreader
        self._items = items
        self._asking = asking
        self._on_outbox = on_outbox

    async def rule_on_item(
        self, item_id: str, user_id: str, ruling: OnItem, *, limit: int | None = None, reason: str, by: str
    ) -> None:
        """Rule on a bidder of one item. ``limit`` in minor units.

        Raises:
            ItemNotFound, StateConflict, TooManyRulings, Unavailable.
        """
        try:
            entry = await _of_redis(
                self._scripts.rule_on_item(item_id, user_id, ruling, limit=limit, reason=reason, by=by)
            )
        except ItemNotFound:
            left = await self._items.left(item_id) or await self._items.absent(item_id)
            raise StateConflict(item_id, left.state.status.value, ruling) from None
        if entry:
            self._on_outbox(names.shard_of(item_id))

    async def rule_on_all(self, user_id: str, seller_id: str | None, ruling: OnAll, *, reason: str, by: str) -> None:
        """Rule on a bidder for all items, or for those of a seller. When this returns, it holds on all of them.

        Raises:
            TooManyRulings, Unavailable.
        """
        made = await _of_redis(self._scripts.rule_on_all(user_id, seller_id, ruling, reason=reason, by=by))
        if made.entry:
            self._on_outbox(home_of(user_id))
        try:
            is_everywhere = await self._spreader.spread(user_id, made)
        except (RedisError, OSError, TimeoutError):
            is_everywhere = False
        if not is_everywhere:
            raise Unavailable(
                "it is decided, and does not hold on every item yet; it will, as soon as all can be reached"
            )

    async def limit_spending(self, user_id: str, currency: str, limit: int | None, *, reason: str, by: str) -> None:
        """Set a bidder's spending limit in minor units, or take it back. When this returns, it is in force on all
        items.

        Raises:
            TooManyRulings, Unavailable.
        """
        ruling = self._account_scripts.limit_spending(user_id, currency, limit, reason=reason, by=by)
        if await _of_redis(ruling):
            self._on_outbox(home_of(user_id))
        try:
            async with asyncio.timeout(OPENING_S):
                await self._accounts.open(user_id, currency)
        except (RedisError, OSError, TimeoutError, Unavailable):
            raise Unavailable("it is decided; what the bidder leads with is still being counted") from None

    async def spending(self, user_id: str, currency: str) -> Spending:
        """What a bidder may spend. Raises Unavailable."""
        return await _of_redis(self._accounts.spending(user_id, currency))

    async def read(self, user_id: str, *, item_id: str | None = None, seller_id: str | None = None) -> Ruled:
        """The rulings on a bidder; of a closed item that has left Redis, those that it had. Raises Unavailable."""
        ruled = await _of_redis(self._scripts.read(user_id, item_id=item_id, seller_id=seller_id))
        if item_id is not None and not ruled.has_item:
            ruled = ruled._replace(on_item=await item_ruling(self._asking.fetch, item_id, user_id))
        return ruled

    async def house_needs_approval(self) -> bool:
        """Whether everybody needs approval. Raises Unavailable."""
        return await _of_redis(self._scripts.house_needs_approval())

    async def page_of_item(self, item_id: str, cursor: int, count: int) -> tuple[dict[str, ItemRuling], int]:
        """See :meth:`RulingScripts.page_of_item`; of a closed item that has left Redis as well. Raises Unavailable."""
        page = await _of_redis(self._scripts.page_of_item(item_id, cursor, count))
        return await item_rulings(self._asking.fetch, item_id, cursor, count) if page is None else page

    async def page_of_all(self, seller_id: str | None, cursor: int, count: int) -> tuple[dict[str, HouseRuling], int]:
        """See :meth:`RulingScripts.page_of_all`. Raises Unavailable."""
        return await _of_redis(self._scripts.page_of_all(seller_id, cursor, count))


async def _of_redis(call: Awaitable[Answer]) -> Answer:
    try:
        return await call
    except (RedisError, OSError, TimeoutError) as error:
        raise Unavailable(f"Redis cannot be asked: {told_of(error)}; a repetition is safe") from error
