from __future__ import annotations

from typing import Any, cast

from api_gateway.archive import Archive, ArchivedBid
from api_gateway.history import History
from shared.messages import BidAccepted, encode_event

BIDS = 30
RECENT = 10


def event(seq: int) -> BidAccepted:
    return BidAccepted(
        item_id="lot",
        epoch=1,
        seq=seq,
        ts_us=seq,
        current_bid=seq,
        highest_bidder_id="ada",
        bid_count=seq,
        min_next_bid=seq + 1,
        status="open",
        end_us=None,
        reserve_met=True,
        currency="USD",
        bid_id=f"b-{seq}",
        user_id="ada",
        amount=seq,
        previous_bid=seq - 1,
        kind="bid",
    )


class Moving:
    """Redis and the archive of one item, while the worker archives six bids between any two questions."""

    def __init__(self) -> None:
        self.archived = 14

    async def version(self, item_id: str) -> tuple[int, int]:
        self.archived += 6
        return (1, self.archived - 6)

    async def bids(self, item_id: str, *, before: Any, limit: int) -> list[ArchivedBid]:
        known = [ArchivedBid(1, n, f"b-{n}", "ada", n, "bid", n, "ada", False) for n in range(1, self.archived + 1)]
        self.archived += 6
        return known[::-1][:limit]

    async def lrange(self, key: str, first: int, last: int) -> list[bytes]:
        return [encode_event(event(seq)) for seq in range(BIDS, BIDS - RECENT, -1)]

    async def xrange(self, key: str, start: str, end: str, *, count: int) -> list[tuple[bytes, dict[bytes, bytes]]]:
        return [
            (b"%d-0" % seq, {b"item": b"lot", b"events": b"[" + encode_event(event(seq)) + b"]"})
            for seq in range(self.archived + 1, BIDS + 1)
        ]


async def test_what_is_archived_meanwhile_is_not_left_out() -> None:
    moving = Moving()
    page = await History(cast(Any, moving), cast(Archive, moving)).page("lot", cursor=None, limit=100)
    assert [bid.seq for bid in page.bids] == list(range(BIDS, 0, -1))
