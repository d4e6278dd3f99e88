"""What the archive is believed of a bid that the log in Redis does not have any more."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import pytest

from api_gateway.engine.bids import voids as striking
from api_gateway.engine.bids.voids import Voids, _Tail
from shared.domain.auction import Terms
from shared.domain.bidding import Bid
from shared.domain.voiding import LogEntry

OF_ANN = LogEntry(1, 1, Bid("of-ann", "ann", 5, None), "bid", 5, row_stands=True)


class LateArchive:
    """It has all bids, and gets the void of the bid while it is asked."""

    def __init__(self) -> None:
        self._voids = 0

    async def version(self, item_id: str) -> tuple[int, int]:
        return 1, 4

    async def count_voids(self, item_id: str) -> int:
        self._voids += 1
        return self._voids - 1

    async def accepted_bid(self, item_id: str, bid_id: str) -> LogEntry:
        return replace(OF_ANN, is_struck=self._voids > 2)


async def test_that_a_bid_stands_is_believed_once_all_voids_that_redis_knows_are_archived(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Otherwise a bid that was struck a moment ago is struck again, where its void is archived a moment later."""
    monkeypatch.setattr(striking, "_LOOK_AGAIN_S", 0.0)
    archive: Any = LateArchive()
    known = Voids(cast(Any, None), cast(Any, None), archive)
    tail = _Tail(Terms("lot", 0), (1, 4), accepted=3, voids=2, counts_voids=True, log=[])
    struck = await known._archived_bid("lot", "of-ann", tail)
    assert struck is not None
    assert struck.is_struck
    assert await archive.count_voids("lot") > 2, "it was waited for"
