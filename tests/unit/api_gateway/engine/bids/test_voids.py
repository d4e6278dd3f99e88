"""What the archive is believed of a bid that the log in Redis does not have any more."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import Any, cast

import pytest

from api_gateway.bids_in_order import Place
from api_gateway.engine.bids import voids as striking
from api_gateway.engine.bids.counting import Count
from api_gateway.engine.bids.voids import Voids, _Counted, _Tail
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


def plain(position: int, user: str, amount: int) -> LogEntry:
    return LogEntry(position, position, Bid(f"of-{user}", user, amount, None), "bid", amount, row_stands=True)


class GappedArchive:
    """Bob's bid comes later than what was accepted after it: another archiver has it."""

    def __init__(self) -> None:
        self.times_read = 0

    async def version(self, item_id: str) -> tuple[int, int]:
        return 1, 9

    async def count_voids(self, item_id: str) -> int:
        return 1

    async def accepted_bids(self, item_id: str, *, after: Place | None) -> AsyncGenerator[tuple[Place, LogEntry], None]:
        self.times_read += 1
        anew = LogEntry(1, 3, Bid("of-eve/anew", "ann", 5), "anew", 5, row_stands=True)
        entries = [OF_ANN, anew, plain(2, "bob", 7), plain(3, "cyd", 9), plain(4, "dee", 11)]
        for entry in entries[:2] + entries[2 + (self.times_read == 1) :]:
            yield cast(Place, entry.seq), entry


async def test_a_bid_that_is_archived_late_is_waited_for_whatever_automatic_bids_there_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An automatic bid that followed a void is in the log, and is no accepted bid: it does not make up for one."""
    monkeypatch.setattr(striking, "_LOOK_AGAIN_S", 0.0)
    archive: Any = GappedArchive()
    known = Voids(cast(Any, None), cast(Any, None), archive)
    terms = Terms("lot", 0)
    tail = _Tail(terms, (1, 9), accepted=4, voids=1, counts_voids=True, log=[plain(4, "dee", 11)])
    counted = await known._count_archived("lot", _Counted(Count(terms, plain(3, "cyd", 9))), tail)
    assert archive.times_read == 2
    assert (counted.count.replay.state.leader, counted.count.replay.state.price) == ("bob", 7)
