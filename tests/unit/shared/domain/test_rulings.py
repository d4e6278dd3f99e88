"""Who may bid, and in which order of all checks that is asked."""

from __future__ import annotations

from dataclasses import replace

import pytest

from shared.domain.auction import Status, Terms, opening_state
from shared.domain.bidding import Accepted, Bid, Refused, place_bid
from shared.domain.increments import Increment
from shared.domain.rulings import NO_RULINGS, Rulings

NOW_US = 1_800_000_000_000_000
TERMS = Terms("item", NOW_US, seller_id="sel", start_price=100, increment=Increment("flat", 10), buy_now_price=5_000)
OPEN = opening_state(TERMS, NOW_US)
LED = place_bid(TERMS, OPEN, Bid("first", "ann", None, 1_000), NOW_US).state


def code(bid: Bid, rulings: Rulings, *, terms: Terms = TERMS, status: Status = Status.OPEN) -> str | None:
    """The code of a refusal that changed nothing; None where the bid was accepted."""
    state = replace(LED, status=status)
    outcome = place_bid(terms, state, bid, NOW_US, rulings)
    if isinstance(outcome.verdict, Refused):
        assert (outcome.state, outcome.events) == (state, ())
        return outcome.verdict.code
    assert isinstance(outcome.verdict, Accepted)
    return None


@pytest.mark.parametrize(
    ("rulings", "refusal"),
    [
        (NO_RULINGS, None),
        (Rulings(approved=True), None),
        (Rulings(needs_approval=True), "NOT_APPROVED"),
        (Rulings(needs_approval=True, approved=True), None),
        (Rulings(blocked=True), "BLOCKED"),
        (Rulings(needs_approval=True, approved=True, blocked=True), "BLOCKED"),
        (Rulings(needs_approval=True, blocked=True), "BLOCKED"),
        (Rulings(limit=199), "LIMIT_EXCEEDED"),
        (Rulings(limit=200), None),
        (Rulings(limit=199, needs_approval=True), "NOT_APPROVED"),
    ],
)
def test_what_was_ruled(rulings: Rulings, refusal: str | None) -> None:
    assert code(Bid("b", "bob", 200), rulings) == refusal


def test_the_order_of_the_checks() -> None:
    everything = Rulings(needs_approval=True, blocked=True, limit=1)
    too_low = Bid("b", "bob", 1)
    assert code(too_low, everything, status=Status.PAUSED) == "PAUSED"
    assert code(replace(too_low, user_id="sel"), everything) == "OWN_ITEM"
    assert code(too_low, everything) == "BLOCKED"
    assert code(too_low, replace(everything, blocked=False)) == "NOT_APPROVED"
    # A bid that would be refused for another reason is refused for that reason: the limit comes last.
    assert code(Bid("b", "bob", 50), Rulings(limit=10)) == "TOO_LOW"
    assert code(Bid("b", "ann", None, 1_000), Rulings(limit=10)) == "MAX_NOT_RAISED"
    assert code(Bid("b", "ann", None, 1_001), Rulings(limit=1_000)) == "LIMIT_EXCEEDED"


def test_the_limit_bounds_the_maximum_and_not_the_price() -> None:
    assert code(Bid("b", "bob", 150, 900), Rulings(limit=899)) == "LIMIT_EXCEEDED"
    assert code(Bid("b", "bob", None, 900), Rulings(limit=900)) is None


def test_who_buys_at_once_pays_that_price_and_no_more() -> None:
    terms, fresh = TERMS, OPEN
    dear = Bid("b", "bob", 9_000, 10_000)
    refused = place_bid(terms, fresh, dear, NOW_US, Rulings(limit=4_999))
    assert refused.verdict == Refused("LIMIT_EXCEEDED")
    bought = place_bid(terms, fresh, dear, NOW_US, Rulings(limit=5_000))
    assert isinstance(bought.verdict, Accepted)
    assert (bought.verdict.kind, bought.state.price) == ("buy_now", 5_000)


def test_a_leader_with_a_lower_limit_than_before_may_show_more_of_what_stands() -> None:
    assert code(Bid("b", "ann", 500), Rulings(limit=500)) is None
    assert code(Bid("b", "ann", 501), Rulings(limit=500)) == "LIMIT_EXCEEDED"


@pytest.mark.parametrize("most", [151, 999, 1_000, 1_001, 4_000])
def test_a_spending_limit_tells_nothing_of_another_s_maximum(most: int) -> None:
    """Else who may spend little would search for it from above, and lift the price to it without a risk."""
    assert LED.leader_max == 1_000
    assert code(Bid("b", "bob", None, most), Rulings(credit=150)) == "LIMIT_EXCEEDED"


def test_a_leader_needs_no_credit_for_what_stands() -> None:
    assert code(Bid("b", "ann", 900), Rulings(credit=150)) is None
    assert code(Bid("b", "ann", None, 1_001), Rulings(credit=150)) == "LIMIT_EXCEEDED"
