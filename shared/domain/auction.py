"""An auction: its terms, which never change, and its state, which each event replaces."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum

from shared.domain.errors import TermsInvalid
from shared.domain.increments import Increment, next_minimum
from shared.domain.money import DEFAULT_CURRENCY, MINOR_MAX
from shared.domain.soft_close import SoftClose


class Status(StrEnum):
    """``scheduled → open → (paused ⇄ open) → sold | unsold``, and ``cancelled`` from any state before those."""

    SCHEDULED = "scheduled"
    OPEN = "open"
    PAUSED = "paused"
    SOLD = "sold"
    UNSOLD = "unsold"
    CANCELLED = "cancelled"

    @property
    def is_final(self) -> bool:
        """Whether no event can follow."""
        return self in (Status.SOLD, Status.UNSOLD, Status.CANCELLED)


@dataclass(frozen=True, slots=True)
class Terms:
    """What the seller fixed. Amounts in minor units, times in microseconds since the Unix epoch.

    ``start_price`` may be 0: the first bid is then at least one minor unit. ``reserve_price`` is hidden from bidders.
    ``approval_required``: only bidders who were approved may bid (:mod:`shared.domain.rulings`).
    """

    item_id: str
    start_us: int
    currency: str = DEFAULT_CURRENCY
    seller_id: str | None = None
    start_price: int = 0
    reserve_price: int | None = None
    buy_now_price: int | None = None
    increment: Increment = field(default_factory=Increment)
    end_us: int | None = None
    soft_close: SoftClose | None = None
    approval_required: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.start_price <= MINOR_MAX:
            raise TermsInvalid("start_price", "is out of range")
        if self.reserve_price is not None and self.reserve_price < max(self.start_price, 1):
            raise TermsInvalid("reserve_price", "must be at least the start price")
        if self.buy_now_price is not None:
            if self.buy_now_price < max(self.start_price, 1):
                raise TermsInvalid("buy_now_price", "must be at least the start price")
            if self.reserve_price is not None and self.buy_now_price < self.reserve_price:
                raise TermsInvalid("buy_now_price", "must be at least the reserve price")
        if self.end_us is not None and self.end_us <= self.start_us:
            raise TermsInvalid("end_time", "must be after start_time")
        if self.soft_close is not None:
            if self.end_us is None:
                raise TermsInvalid("soft_close", "needs an end_time")
            hard_end = self.soft_close.hard_end_us
            if hard_end is not None and hard_end < self.end_us:
                raise TermsInvalid("soft_close", "hard_end must not be before end_time")


@dataclass(frozen=True, slots=True)
class State:
    """What changes during the auction.

    Attributes:
        leader_max: the leader's maximum; hidden from everybody else.
        runner_up: the highest maximum of anybody but the leader, 0 if there is none.
        bid_count: accepted bids placed by people; automatic bids do not count.
        seq: the number of the last event; ``created`` is 0.
        end_us: the present end; the soft close, a resume and an operator move it. The agreed end stays in the terms.
        hard_end_us: the soft close never moves the end past this instant; whatever else moves the end shifts it too.
        paused_us: since when the item is paused, None while it is not.
        extensions: how often the soft close has moved the end.
        moved_us: by how much its seller and operators have moved the end, in all.
    """

    status: Status = Status.OPEN
    price: int = 0
    leader: str | None = None
    leader_max: int = 0
    runner_up: int = 0
    bid_count: int = 0
    seq: int = 0
    epoch: int = 1
    end_us: int | None = None
    hard_end_us: int | None = None
    paused_us: int | None = None
    extensions: int = 0
    moved_us: int = 0
    reserve_met: bool = True


def opening_state(terms: Terms, now_us: int) -> State:
    """The state right after creation (seq 0)."""
    return State(
        status=Status.OPEN if terms.start_us <= now_us else Status.SCHEDULED,
        price=terms.start_price,
        end_us=terms.end_us,
        hard_end_us=None if terms.soft_close is None else terms.soft_close.hard_end_us,
        reserve_met=terms.reserve_price is None,
    )


def minimum_bid(terms: Terms, state: State) -> int:
    """The least next bid: the start price for the first bid, then the price plus the increment."""
    if state.leader is None:
        return max(terms.start_price, 1)
    return next_minimum(state.price, terms.increment)


def buy_now_offered(terms: Terms, state: State) -> bool:
    """Buy-now is offered until the first accepted bid or, with a reserve, until that is met."""
    if terms.buy_now_price is None:
        return False
    return not state.reserve_met if terms.reserve_price is not None else state.leader is None
