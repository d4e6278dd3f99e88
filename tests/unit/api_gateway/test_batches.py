"""Many bids in one request, where items have left Redis meanwhile."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

from api_gateway.contract.schemas import BatchedBid
from api_gateway.engine.bids.batcher import PendingBid
from api_gateway.engine.bids.errors import ItemMissing
from api_gateway.identity.access import Permit, Reach
from api_gateway.routes.batches import _answer_all
from shared.domain.errors import Unavailable

ITEMS = 40


class Committer:
    """All items but one have left Redis."""

    def place(self, bid: PendingBid) -> None:
        if bid.item_id == "there":
            bid.verdict.set_result(b"A|b-1|7|100|100|1|101|1|bid|1|5")
        else:
            bid.verdict.set_exception(ItemMissing())


class Items:
    """The archive does not answer, and each question waits for as long as it may."""

    def __init__(self) -> None:
        self.known = {f"left-{number}": 2 for number in range(ITEMS)} | {"there": 2}
        self.waiting = self.waiting_most = 0

    async def left(self, item_id: str) -> Any:
        self.waiting += 1
        self.waiting_most = max(self.waiting_most, self.waiting)
        await asyncio.sleep(0.02)
        self.waiting -= 1
        raise Unavailable("the archive does not answer")


async def test_items_that_have_left_are_asked_for_beside_each_other_within_a_bound() -> None:
    items = Items()
    context: Any = SimpleNamespace(items=items, committer=Committer(), traces=None)
    bids = [BatchedBid(item_id=name, user_id="ann", amount=cast(Any, b"1.00")) for name in items.known]
    answers = await _answer_all(context, Permit(None, Reach.ANY), bids)
    assert [status for status, _ in answers] == [503] * ITEMS + [201]
    assert 4 <= items.waiting_most <= 16
