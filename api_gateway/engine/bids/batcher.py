"""Group commit, the pure half: which bids go into the next round trip to Redis.

Bids that arrive while a flush is in flight wait; the next flush carries all of them, grouped by item, in arrival
order. When the gateway is idle a bid is flushed at once, so batching adds no delay; under load the batches grow by
themselves and thousands of round trips become a few. There is no timer and no size to tune.
"""

from __future__ import annotations

from typing import Final

import msgspec

from api_gateway.engine.bids.pending_verdict import PendingVerdict
from api_gateway.engine.bids.queue_bound import QueueBound
from api_gateway.tracing.one_bid import BidTrace
from shared.redis_layout.stored_verdicts import fingerprint_of

BIDS_PER_CALL_MAX: Final = 256
"""Bids of one item in one script call, so that a call occupies Redis for a millisecond or two."""

BIDS_PER_FLUSH_MAX: Final = 2_048
"""Bids in one round trip, over all items."""


class PendingBid(msgspec.Struct, eq=False):
    """A validated bid on its way to Redis. Amounts in minor units.

    ``key`` is the idempotency key or None; ``key_is_bid_id`` where it is the bid id itself. ``verdict`` is resolved
    with the script's verdict, or with the error that answers the request. ``has_credit``: more of the bidder's spending
    limit was sought for it already. ``trace``: where it is sampled.
    """

    item_id: str
    user_id: str
    bid_id: str
    amount: int | None
    maximum: int | None
    key: str | None
    key_is_bid_id: bool
    verdict: PendingVerdict
    has_credit: bool = False
    trace: BidTrace | None = None

    @property
    def fingerprint(self) -> str:
        """What must be equal for a repeated key to be the same bid."""
        return fingerprint_of(self.amount, self.maximum)


class Batcher:
    """A bounded queue of bids and the rule by which they are flushed. No network.

    Guarantees: bids of one item are flushed in arrival order, at most one flush is in flight, and no item waits for
    more than one flush because another one is busier.
    """

    def __init__(self, bound: QueueBound, *, calls_per_item: int = 1) -> None:
        """
        Args:
            calls_per_item: how many calls a flush may have for one item, in their order, where others leave room. Those
                after the first come behind the calls of all other items.
        """
        self._bound = bound
        self._calls_per_item = calls_per_item
        self._waiting: dict[str, list[PendingBid]] = {}
        self._length = 0
        self._in_flight = False

    def __len__(self) -> int:
        """Bids that wait, not counting those in flight."""
        return self._length

    def is_full(self) -> bool:
        """Whether the queue is at its bound."""
        return not self._bound.admits(self._length)

    def offer(self, bid: PendingBid) -> bool:
        """Queue a bid; False where the queue is at its bound (the caller answers 503 at once)."""
        if not self._bound.admits(self._length):
            return False
        self.queue(bid)
        return True

    def queue(self, bid: PendingBid) -> None:
        """Queue a bid whatever the bound is; whoever calls bounds how many these are."""
        self._length += 1
        waiting = self._waiting.get(bid.item_id)
        if waiting is None:
            self._waiting[bid.item_id] = [bid]
        else:
            waiting.append(bid)

    def take(self) -> list[list[PendingBid]]:
        """The next flush, one list per call, or nothing where a flush is in flight or no bid waits."""
        if self._in_flight or not self._length:
            return []
        flush: list[list[PendingBid]] = []
        taken, taken_max = 0, min(BIDS_PER_FLUSH_MAX, self._bound.flush_max)
        for _ in range(self._calls_per_item):
            left_over: dict[str, list[PendingBid]] = {}
            while self._waiting and taken < taken_max:
                item_id, waiting = next(iter(self._waiting.items()))
                del self._waiting[item_id]
                call = waiting[:BIDS_PER_CALL_MAX]
                if len(waiting) > BIDS_PER_CALL_MAX:
                    # To the end of the line: the items behind it are served first.
                    left_over[item_id] = waiting[BIDS_PER_CALL_MAX:]
                flush.append(call)
                taken += len(call)
            self._waiting.update(left_over)
            if not self._waiting or taken >= taken_max:
                break
        self._length -= taken
        self._in_flight = True
        self._bound.taken(taken, self._length)
        return flush

    def done(self, *, is_decided: bool = True) -> None:
        """The flush has been answered, or has failed; the next one may go. ``is_decided``: whether any bid of it was
        decided."""
        self._in_flight = False
        self._bound.done(is_decided=is_decided)

    def drain(self) -> list[PendingBid]:
        """Everything that still waits, for answering it on shutdown; the queue is empty afterwards."""
        bids = [bid for waiting in self._waiting.values() for bid in waiting]
        self._waiting.clear()
        self._length = 0
        return bids
