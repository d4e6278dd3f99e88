"""Operators' requests end before a load balancer gives them up."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest

from api_gateway.changes.operations import WITHIN_S, Operations
from shared.domain.auction import Status
from shared.domain.errors import ItemNotFound, Unavailable


class Gone:
    """An item that has left Redis again each time that it was brought back. To bring it back takes a while."""

    def __init__(self) -> None:
        self.returns = 0

    async def strike(self, item_id: str, bid_id: str, *, reason: str, by: str) -> None:
        raise ItemNotFound(item_id)

    async def left(self, item_id: str) -> Any:
        return SimpleNamespace(state=SimpleNamespace(status=Status.SOLD))

    async def retired(self, item_id: str) -> None:
        return None

    async def accepted_bid(self, item_id: str, bid_id: str) -> Any:
        return SimpleNamespace(is_struck=False)

    async def bring_back(self, item_id: str) -> bool:
        self.returns += 1
        await asyncio.sleep(0.15)
        return True


async def test_a_void_has_one_deadline_for_all_that_it_waits_for() -> None:
    assert WITHIN_S < 60
    gone: Any = Gone()
    operations = Operations(cast(Any, None), gone, gone, gone, gone, on_outbox=lambda shard: None, within_s=0.2)
    with pytest.raises(Unavailable, match="took too long"):
        await operations.void("lot", "b-1", reason="x", by="op")
    assert gone.returns == 2
