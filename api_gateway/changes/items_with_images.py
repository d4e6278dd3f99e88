"""Creates items that may have images.

An image that an item uses is kept for good, so nobody may have images kept without an item. They have to be kept before
the item is opened, or a crash in between would leave an item whose images go after a day. So everything that would
refuse the item is checked first:

1. Requests for one id take turns. 2. The end is in the future, and nobody ever had the id. 3. All images are there.
4. They are kept. 5. The item is opened.

Images without an item are left where it is refused between 4 and 5: another gateway opened an item with the same id
meanwhile, Redis became unreachable, or this process ended. Each of these is rare, and a spare image harms nobody.
"""

from __future__ import annotations

import asyncio
import time

from api_gateway.context import Context
from api_gateway.engine.creation.new_item import NewItem, require_future_end
from api_gateway.images.addresses import own_names
from shared.redis_layout.item_hash import ItemState


async def create_item(context: Context, item: NewItem) -> ItemState:
    """Open an item, and keep its images.

    Raises:
        TermsInvalid: one of its images is not here.
        StoreAway: they cannot be looked for now. Nothing was created.

    It also raises what the result of :meth:`Openings.open` raises.
    """
    if not own_names(item.image_urls):
        return await context.items.create(item)
    async with context.images.turn_of(item.terms.item_id):
        require_future_end(item, time.time_ns() // 1_000)
        await asyncio.shield(context.items.openings.check(item))
        await context.images.keep(item.image_urls)
        return await context.items.create(item)
