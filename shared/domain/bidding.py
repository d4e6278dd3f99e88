"""Decides one bid: terms + state + bid + now → verdict, events and the new state.

This is the reference. ``api_gateway/engine/lua/place_bids.lua`` makes the same decisions in Redis, and tests drive
random histories through both.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from shared.domain.auction import State, Status, Terms, buy_now_offered, minimum_bid
from shared.domain.rulings import NO_RULINGS, Rulings

Kind = Literal["bid", "proxy", "buy_now"]


@dataclass(frozen=True, slots=True)
class Bid:
    """What a bidder asks for, in minor units.

    ``amount`` is the price that the bidder wants to set, ``maximum`` how far the platform may go for them. At least one
    is given, and ``maximum`` is not below ``amount``. An amount alone is also the maximum; a maximum alone asks for the
    lowest price that leads.
    """

    bid_id: str
    user_id: str
    amount: int | None = None
    maximum: int | None = None

    @property
    def limit(self) -> int:
        """The most that the bidder would pay."""
        limit = self.amount if self.maximum is None else self.maximum
        assert limit is not None, "a bid has an amount or a maximum"
        return limit


@dataclass(frozen=True, slots=True)
class BidPlaced:
    """A sequenced event: ``amount`` became the visible price."""

    seq: int
    bid_id: str
    user_id: str
    kind: Kind
    amount: int
    previous: int


@dataclass(frozen=True, slots=True)
class Extended:
    """A sequenced event: the soft close moved the end."""

    seq: int
    previous_end_us: int
    end_us: int


@dataclass(frozen=True, slots=True)
class Closed:
    """The last sequenced event: a buy-now sold the item."""

    seq: int
    winner: str


DomainEvent = BidPlaced | Extended | Closed


@dataclass(frozen=True, slots=True)
class Accepted:
    """The bid counts. ``seq`` is that of the bidder's own event.

    ``raised``: the leader raised the maximum without a visible change; there is no event, and ``seq`` is the last one.
    """

    seq: int
    your_bid: int
    leads: bool
    kind: Kind
    raised: bool = False


@dataclass(frozen=True, slots=True)
class Refused:
    """The bid changed nothing.

    Codes: ``NOT_STARTED CLOSED PAUSED CANCELLED SOLD OWN_ITEM BLOCKED NOT_APPROVED TOO_LOW MAX_NOT_RAISED
    LIMIT_EXCEEDED``.
    """

    code: str


Verdict = Accepted | Refused


@dataclass(frozen=True, slots=True)
class Outcome:
    """The verdict, the events in order, and the state after them."""

    verdict: Verdict
    events: tuple[DomainEvent, ...]
    state: State


def place_bid(terms: Terms, state: State, bid: Bid, now_us: int, rulings: Rulings = NO_RULINGS) -> Outcome:
    """Decide one bid. Pure: the caller saves ``state`` and publishes ``events`` in one atomic step."""
    refusal = refusal_by_status(terms, state, now_us) or _refusal_by_bid(terms, state, bid, rulings)
    if refusal is not None:
        return Outcome(Refused(refusal), (), state)
    # The first accepted bid opens a scheduled item whose start has come, if the closer has not opened it yet.
    state = replace(state, status=Status.OPEN)
    buy_now = _taken_at_buy_now(terms, state, bid)
    if buy_now is not None:
        return _buy_now(terms, state, bid, buy_now)
    decided = count_in(terms, state, bid)
    if not decided.events:
        return decided
    return _soft_close(terms, decided, now_us)


def count_in(terms: Terms, state: State, bid: Bid, *, buys_now: bool = False) -> Outcome:
    """Apply an accepted bid to the price and the maxima, whatever the time and the status.

    A void applies the remaining bids again (:mod:`shared.domain.voiding`). One of them may then be below the minimum,
    if increments fall as the price rises; it was accepted, so it counts. The price never falls here.
    """
    if buys_now:
        return _buy_now(terms, state, bid, terms.buy_now_price or 0)
    if state.leader is None:
        return _first_bid(terms, state, bid)
    if bid.user_id == state.leader:
        return _leader_bids_again(terms, state, bid)
    return _against_leader(terms, state, bid)


def _refusal_by_bid(terms: Terms, state: State, bid: Bid, rulings: Rulings) -> str | None:
    """Checks who bids, then how much. The limit comes last: it refuses only a bid that would count without it."""
    if terms.seller_id is not None and bid.user_id == terms.seller_id:
        return "OWN_ITEM"
    if rulings.refusal is not None:
        return rulings.refusal
    taken_at = _taken_at_buy_now(terms, state, bid)
    refusal = None if taken_at is not None else _refusal_by_amount(terms, state, bid)
    if refusal is not None:
        return refusal
    # A buyer at once pays the buy-now price, however much the bid offered.
    most = bid.limit if taken_at is None else max(taken_at, state.price)
    return None if rulings.allows(most) and _has_credit(state, bid, most, rulings) else "LIMIT_EXCEEDED"


def _has_credit(state: State, bid: Bid, most: int, rulings: Rulings) -> bool:
    """Whether the bid is within the spending limit if it leads. A leader keeps the credit for the maximum that leads
    already."""
    if rulings.credit is None or most <= rulings.credit:
        return True
    # A rival whom the leader's maximum beats is refused, too. Otherwise a rival with too little credit could find that
    # maximum from above, since each higher bid is refused, and lift the price to it without a risk.
    return bid.user_id == state.leader and most <= state.leader_max


def _refusal_by_amount(terms: Terms, state: State, bid: Bid) -> str | None:
    if bid.user_id == state.leader and bid.amount is None:
        # A leader's maximum is compared with their present maximum, not with the visible minimum.
        return "MAX_NOT_RAISED" if bid.limit <= state.leader_max else None
    asked = bid.limit if bid.amount is None else bid.amount
    return "TOO_LOW" if asked < minimum_bid(terms, state) else None


def _taken_at_buy_now(terms: Terms, state: State, bid: Bid) -> int | None:
    """The buy-now price, if it is offered and the bid's amount reaches it."""
    if terms.buy_now_price is None or bid.amount is None or bid.amount < terms.buy_now_price:
        return None
    return terms.buy_now_price if buy_now_offered(terms, state) else None


def refusal_by_status(terms: Terms, state: State, now_us: int) -> str | None:
    """The code with which every bid at this instant is refused, or None while the item takes bids."""
    if state.status is Status.SOLD:
        return "SOLD"
    if state.status is Status.UNSOLD:
        return "CLOSED"
    if state.status is Status.CANCELLED:
        return "CANCELLED"
    if state.status is Status.PAUSED:
        return "PAUSED"
    if now_us < terms.start_us:
        return "NOT_STARTED"
    if state.end_us is not None and now_us >= state.end_us:
        return "CLOSED"
    return None


def _first_bid(terms: Terms, state: State, bid: Bid) -> Outcome:
    """Without a rival the price is the start price, or the bidder's own amount if that is higher."""
    price = minimum_bid(terms, state) if bid.amount is None else bid.amount
    return _newcomer_leads(terms, state, bid, price)


def _against_leader(terms: Terms, state: State, bid: Bid) -> Outcome:
    """A rival's bid against the leader's maximum."""
    standing, limit = state.leader_max, bid.limit
    if limit > standing:
        price = min(standing + terms.increment.at(standing), limit)
        if bid.amount is not None:
            price = max(price, bid.amount)
        return _newcomer_leads(terms, state, bid, price, runner_up=standing)

    verdict = Accepted(seq=state.seq + 1, your_bid=limit, leads=False, kind="bid")
    if limit <= state.price:
        # Only during a void: the bid changes nothing visible, but it was placed.
        quiet = replace(state, runner_up=max(state.runner_up, limit), bid_count=state.bid_count + 1)
        return Outcome(verdict, (), quiet)
    # The leader's maximum beats the newcomer at once. The newcomer's bid still counts, with its full amount ...
    events: list[DomainEvent] = [_placed(state.seq + 1, bid, "bid", limit, state.price)]
    after = replace(state, price=limit, runner_up=limit, bid_count=state.bid_count + 1, seq=state.seq + 1)
    if limit < standing:
        # ... and an automatic bid answers it. On a tie the earlier maximum leads, at that amount.
        assert state.leader is not None
        answer = min(limit + terms.increment.at(limit), standing)
        events.append(BidPlaced(after.seq + 1, f"{bid.bid_id}/proxy", state.leader, "proxy", answer, limit))
        after = replace(after, price=answer, seq=after.seq + 1)
    return Outcome(verdict, tuple(events), after)


def _leader_bids_again(terms: Terms, state: State, bid: Bid) -> Outcome:
    """The leader sets a higher price, or raises the hidden maximum."""
    maximum = max(state.leader_max, bid.limit)
    if bid.amount is not None:
        return _newcomer_leads(terms, state, bid, bid.amount)
    price = state.price
    if price == state.leader_max and state.runner_up:
        # The old maximum had capped the price: complete the increment over the runner-up.
        price = max(price, min(state.runner_up + terms.increment.at(state.runner_up), maximum))
    price = _lifted_to_reserve(terms, state, price, maximum)
    if price > state.price:
        return _newcomer_leads(terms, state, bid, price)
    verdict = Accepted(seq=state.seq, your_bid=state.price, leads=True, kind="bid", raised=True)
    return Outcome(verdict, (), replace(state, leader_max=maximum))


def _newcomer_leads(terms: Terms, state: State, bid: Bid, price: int, *, runner_up: int | None = None) -> Outcome:
    """The bidder leads at ``price``, or at the reserve where the maximum reaches it.

    ``runner_up`` where that changes.
    """
    again = bid.user_id == state.leader
    maximum = max(bid.limit, state.leader_max) if again else bid.limit
    price = max(state.price, _lifted_to_reserve(terms, state, price, maximum))
    after = replace(
        state,
        price=price,
        leader=bid.user_id,
        leader_max=maximum,
        runner_up=state.runner_up if runner_up is None else runner_up,
        bid_count=state.bid_count + 1,
        seq=state.seq + 1,
        reserve_met=terms.reserve_price is None or price >= terms.reserve_price,
    )
    verdict = Accepted(seq=after.seq, your_bid=price, leads=True, kind="bid")
    return Outcome(verdict, (_placed(after.seq, bid, "bid", price, state.price),), after)


def _lifted_to_reserve(terms: Terms, state: State, price: int, maximum: int) -> int:
    """The price under an unmet reserve: a maximum that reaches the reserve shows the reserve, a lower one all of it."""
    if terms.reserve_price is None or state.reserve_met:
        return price
    return max(price, min(maximum, terms.reserve_price))


def _buy_now(terms: Terms, state: State, bid: Bid, price: int) -> Outcome:
    """Sell in the same step: the bid and the close are two events of one decision."""
    price = max(state.price, price)
    after = replace(
        state,
        status=Status.SOLD,
        price=price,
        leader=bid.user_id,
        leader_max=price,
        runner_up=state.leader_max if bid.user_id != state.leader else state.runner_up,
        bid_count=state.bid_count + 1,
        seq=state.seq + 2,
        reserve_met=True,
    )
    placed = _placed(state.seq + 1, bid, "buy_now", price, state.price)
    verdict = Accepted(seq=state.seq + 1, your_bid=price, leads=True, kind="buy_now")
    return Outcome(verdict, (placed, Closed(after.seq, bid.user_id)), after)


def _soft_close(terms: Terms, decided: Outcome, now_us: int) -> Outcome:
    """Move the end, as one more event, if the bid changed the price with little time left."""
    state = decided.state
    if terms.soft_close is None or state.end_us is None:
        return decided
    new_end = terms.soft_close.extended_end(state.end_us, now_us, state.extensions, state.hard_end_us)
    if new_end is None:
        return decided
    extended = Extended(state.seq + 1, state.end_us, new_end)
    after = replace(state, end_us=new_end, extensions=state.extensions + 1, seq=extended.seq)
    return Outcome(decided.verdict, (*decided.events, extended), after)


def _placed(seq: int, bid: Bid, kind: Kind, amount: int, previous: int) -> BidPlaced:
    return BidPlaced(seq, bid.bid_id, bid.user_id, kind, amount, previous)
