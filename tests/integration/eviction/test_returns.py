"""An item comes back for a void, while others bring it back too, or leave, or the archive moves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest

from api_gateway.engine.closed.returns import Returns
from infrastructure.local.services import API_GATEWAY, ARCHIVAL_WORKER
from shared import names
from shared.archive_reads.asking import Asking, Connection
from shared.domain.errors import Unavailable
from shared.redis_layout.keys import cursors_key
from tests.integration.eviction.eviction_world import auction_of, sold
from tests.integration.eviction.test_life import REASON, no_longer_returned
from tests.stack import StackFactory

pytestmark = pytest.mark.integration

BOTH = (API_GATEWAY, ARCHIVAL_WORKER)


class SlowAsking(Asking):
    """Something happens while an item is read to be brought back."""

    happens: Any = None

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[Connection]:
        async with super().reading() as connection:
            yield connection
            happens, self.happens = self.happens, None
            if happens is not None:
                await happens()


class BusyAsking(SlowAsking):
    """Something happens in every reading, and in the first questions after it."""

    readings = 0
    questions = 0

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[Connection]:
        self.readings += 1
        always = self.happens
        async with super().reading() as connection:
            yield connection
        self.happens = always

    async def fetch(self, query: str, *arguments: Any) -> list[Any]:
        rows = await super().fetch(query, *arguments)
        self.questions += 1
        if self.questions < 4:
            await self.happens()
        return rows


class CountedAsking(Asking):
    readings = 0

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[Connection]:
        self.readings += 1
        async with super().reading() as connection:
            yield connection


async def test_an_older_state_never_comes_back(start_stack: StackFactory) -> None:
    """1. A gateway reads the item, to bring it back. 2. Another one brings it back, a bid is struck, all is archived,
    and it leaves again. 3. The first one writes what it has read."""
    stack = await start_stack(services=BOTH)
    async with auction_of(stack) as auction:
        house = auction.house
        await sold(house, "lot")
        await auction.evicted("lot")
        asking = SlowAsking(auction.pool)

        async def struck_meanwhile() -> None:
            await house.operate("lot/bids/lot-ann/void")
            await auction.exported("lot")
            await no_longer_returned(auction, "lot")
            await auction.evicted("lot")

        asking.happens = struck_meanwhile
        before = await auction.fence("lot")
        assert await Returns(auction.redis, asking).bring_back("lot")
        assert await auction.fence("lot") != before
        fields = await house.hash("lot")
        assert (fields["status"], fields["voids"]) == ("unsold", "1"), "with what happened meanwhile"
        assert not [key async for key in auction.redis.scan_iter("*:returning:*")], "what was given up is removed"


async def test_an_item_comes_back_while_others_of_its_shard_leave(start_stack: StackFactory) -> None:
    """Each of them changes the fence. What was read is still right."""
    stack = await start_stack(services=BOTH)
    async with auction_of(stack) as auction:
        await sold(auction.house, "lot")
        await auction.evicted("lot")
        asking = BusyAsking(auction.pool)
        cursors = cursors_key(names.shard_of("lot"))

        async def another_leaves() -> None:
            await cast(Any, auction.redis).hincrby(cursors, "evictions", 1)

        asking.happens = another_leaves
        assert await Returns(auction.redis, asking).bring_back("lot")
        assert asking.readings == 1, "it is staged once"
        assert (await auction.house.hash("lot"))["status"] == "sold"
        assert not [key async for key in auction.redis.scan_iter("*:returning:*")]


async def test_of_several_who_bring_it_back_all_find_it(start_stack: StackFactory) -> None:
    stack = await start_stack(services=BOTH)
    async with auction_of(stack) as auction:
        await sold(auction.house, "lot")
        await auction.evicted("lot")
        asking = CountedAsking(auction.pool)
        returns = Returns(auction.redis, asking)
        assert all(await asyncio.gather(*(returns.bring_back("lot") for _ in range(10))))
        assert asking.readings == 1, "one of them reads it"
        assert await Returns(auction.redis, asking).bring_back("lot")
        assert asking.readings == 1, "it is there"
        await no_longer_returned(auction, "lot")
        await auction.evicted("lot")
        # Gateways do not know of each other.
        assert all(await asyncio.gather(*(auction.returns().bring_back("lot") for _ in range(10))))
        assert not [key async for key in auction.redis.scan_iter("*:returning:*")]
        assert not await auction.returns().bring_back("unknown")
        voids = [auction.house.http.post("/api/v1/items/lot/bids/lot-ann/void", json=REASON) for _ in range(5)]
        statuses = sorted([answer.status_code for answer in await asyncio.gather(*voids)])
        assert statuses == [200, 409, 409, 409, 409]


async def test_a_return_that_cannot_be_read_is_told(start_stack: StackFactory) -> None:
    stack = await start_stack(services=BOTH)
    async with auction_of(stack) as auction:
        await sold(auction.house, "lot")
        await auction.evicted("lot")
        await stack.stop_process("postgres")
        try:
            with pytest.raises(Unavailable):
                await auction.returns().bring_back("lot")
            assert await auction.traces("lot") == []
        finally:
            await stack.start_process("postgres")
