"""Items and events for the tests: an item starts at 1.00 and rises by 1.00 per bid, so its price tells its seq."""

from __future__ import annotations

import json
from typing import Any

from broadcast_service.core.frames import Frame
from shared.domain.auction import State, Status, Terms
from shared.messages import (
    AuctionClosed,
    AuctionExtended,
    AuctionPaused,
    AuctionResumed,
    BidAccepted,
    EndMoved,
    Event,
    ItemCreated,
)
from shared.redis_layout.item_hash import ItemState

ITEM = "vase"
START_US = 1_700_000_000_000_000
SECRET = 99_999_999
"""Reserve and maxima of every item here: a number that may be in no frame."""


def price_at(seq: int) -> int:
    return 100 * (seq + 1)


def item(
    seq: int = 0, *, epoch: int = 1, item_id: str = ITEM, bid_count: int | None = None, extensions: int = 0
) -> ItemState:
    return ItemState(
        terms=Terms(item_id, START_US, start_price=100, reserve_price=SECRET),
        state=State(
            status=Status.OPEN,
            price=price_at(seq),
            leader=f"user-{seq}" if seq else None,
            leader_max=SECRET if seq else 0,
            runner_up=SECRET if seq else 0,
            bid_count=seq if bid_count is None else bid_count,
            seq=seq,
            epoch=epoch,
            reserve_met=False,
            extensions=extensions,
        ),
        name="A vase",
        description="blue",
        original_end_us=None,
        created_us=START_US,
        updated_us=START_US + seq,
    )


def _public(seq: int, epoch: int, item_id: str) -> dict[str, Any]:
    return {
        "item_id": item_id,
        "epoch": epoch,
        "seq": seq,
        "ts_us": START_US + seq,
        "current_bid": price_at(seq),
        "highest_bidder_id": f"user-{seq}" if seq else None,
        "bid_count": seq,
        "min_next_bid": price_at(seq) + 1 if seq else 100,
        "status": "open",
        "end_us": None,
        "reserve_met": False,
        "currency": "USD",
    }


def created(*, epoch: int = 1, item_id: str = ITEM) -> ItemCreated:
    return ItemCreated(
        **_public(0, epoch, item_id),
        name="A vase",
        description="blue",
        seller_id=None,
        start_price=100,
        reserve_price=SECRET,
        buy_now_price=None,
        increment_kind="flat",
        increment_value=1,
        increment_steps="",
        start_us=START_US,
        soft_close="",
        auto_opened=False,
    )


def bid(seq: int, *, epoch: int = 1, item_id: str = ITEM, bid_count: int | None = None) -> BidAccepted:
    return BidAccepted(
        **{**_public(seq, epoch, item_id), "bid_count": seq if bid_count is None else bid_count},
        bid_id=f"bid-{seq}",
        user_id=f"user-{seq}",
        amount=price_at(seq),
        previous_bid=price_at(seq - 1),
        kind="bid",
    )


def bids(first: int, last: int, *, epoch: int = 1) -> tuple[Event, ...]:
    """Bids of the seqs from ``first`` to ``last``, both included."""
    return tuple(bid(seq, epoch=epoch) for seq in range(first, last + 1))


def extended(seq: int, extensions: int, *, epoch: int = 1, bid_count: int | None = None) -> AuctionExtended:
    return AuctionExtended(
        **{**_public(seq, epoch, ITEM), "bid_count": seq if bid_count is None else bid_count, "end_us": START_US + seq},
        previous_end_us=START_US + seq - 1,
        original_end_us=START_US,
        extensions=extensions,
    )


def paused(seq: int, *, epoch: int = 1, bid_count: int | None = None) -> AuctionPaused:
    """A pause in which bidding goes on: for the tests it is just an event that is not a bid."""
    return AuctionPaused(
        **{**_public(seq, epoch, ITEM), "bid_count": seq if bid_count is None else bid_count}, reason="why", by=None
    )


def resumed(seq: int, *, end_us: int | None) -> AuctionResumed:
    """The end of a pause, which moved the end to ``end_us``."""
    return AuctionResumed(**{**_public(seq, 1, ITEM), "end_us": end_us}, reason="why", by=None)


def end_moved(seq: int, previous_us: int, *, end_us: int) -> EndMoved:
    """An operator moved the end to ``end_us``."""
    return EndMoved(
        **{**_public(seq, 1, ITEM), "end_us": end_us},
        previous_end_us=previous_us,
        original_end_us=START_US,
        extensions=0,
        reason="why",
        by=None,
    )


def closed(seq: int) -> AuctionClosed:
    return AuctionClosed(**{**_public(seq, 1, ITEM), "status": "sold"}, winner_id=f"user-{seq - 1}")


def content(frame: Frame) -> dict[str, Any]:
    """A frame as a viewer reads it."""
    decoded: dict[str, Any] = json.loads(frame.text)
    return decoded


def shown(frames: tuple[Frame, ...]) -> list[tuple[str, int]]:
    """Types and seqs of the frames that a viewer sees."""
    return [(content(frame)["type"], content(frame).get("seq", -1)) for frame in frames]
