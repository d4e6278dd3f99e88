"""Why no gateway refuses a bid by what it remembers of an item (decision 0079): for each thing that may have happened
since, elsewhere, a bid that was too low then and of which Redis says something else now."""

from __future__ import annotations

from dataclasses import replace

import pytest

from shared.domain.auction import State, Status, Terms, minimum_bid, opening_state
from shared.domain.bidding import Accepted, Bid, Refused, place_bid
from shared.domain.increments import Increment
from shared.domain.rulings import NO_RULINGS, Rulings

NOW_US = 1_800_000_000_000_000
TERMS = Terms("item", NOW_US, start_price=100, increment=Increment("flat", 10), end_us=NOW_US + 1_000)


def after(*bids: Bid, terms: Terms = TERMS) -> State:
    """The item after these bids, all of which were accepted."""
    state = opening_state(terms, NOW_US)
    for bid in bids:
        outcome = place_bid(terms, state, bid, NOW_US)
        assert isinstance(outcome.verdict, Accepted)
        state = outcome.state
    return state


ANN, BOB = Bid("a", "ann", 200), Bid("b", "bob", 300)
REMEMBERED = after(ANN, BOB)
LOW = Bid("low", "cat", 250)


def told(
    state: State, bid: Bid, *, now_us: int = NOW_US, rulings: Rulings = NO_RULINGS, terms: Terms = TERMS
) -> object:
    """What its bidder hears: the code, or True where it is accepted; and what else is in a refusal."""
    verdict = place_bid(terms, state, bid, now_us, rulings).verdict
    if isinstance(verdict, Accepted):
        return True
    assert isinstance(verdict, Refused)
    return verdict.code, state.price, minimum_bid(terms, state), bid.user_id == state.leader


TOO_LOW = ("TOO_LOW", 300, 310, False)


def test_what_a_gateway_would_say_that_remembers() -> None:
    assert told(REMEMBERED, LOW) == TOO_LOW


@pytest.mark.parametrize("status", [Status.PAUSED, Status.CANCELLED, Status.SOLD, Status.UNSOLD])
def test_the_status_comes_before_the_amount(status: Status) -> None:
    code = {Status.UNSOLD: "CLOSED"}.get(status, status.upper())
    assert told(replace(REMEMBERED, status=status), LOW) == (code, 300, 310, False)


def test_the_end_is_one_of_redis_clock() -> None:
    assert told(REMEMBERED, LOW, now_us=NOW_US + 1_000) == ("CLOSED", 300, 310, False)


@pytest.mark.parametrize(
    ("rulings", "code"), [(Rulings(blocked=True), "BLOCKED"), (Rulings(needs_approval=True), "NOT_APPROVED")]
)
def test_a_ruling_comes_before_the_amount(rulings: Rulings, code: str) -> None:
    assert told(REMEMBERED, LOW, rulings=rulings) == (code, 300, 310, False)


def test_a_struck_bid_gives_room_to_a_lower_one() -> None:
    """A void, or a rebuilding without the newest bids: the bid counts, and may win."""
    assert told(after(ANN), LOW) is True


def test_a_refusal_tells_the_price_of_its_moment() -> None:
    """Cat knows of 400 already, through another gateway, and leads."""
    assert told(after(ANN, BOB, Bid("c", "cat", 400)), LOW) == ("TOO_LOW", 400, 410, True)


def test_a_leaders_maximum_is_not_held_against_the_price() -> None:
    low = Bid("low", "cat", None, 305)
    assert told(REMEMBERED, low) == TOO_LOW
    assert told(after(ANN, BOB, Bid("c", "cat", None, 900)), low) == ("MAX_NOT_RAISED", 310, 320, True)


def test_bids_alone_can_lower_the_least_next_bid() -> None:
    """Where increments fall as the price rises, and a leader whose maximum had capped the price raises it."""
    terms = replace(TERMS, increment=Increment("ladder", 1, ((200, 50),)))
    capped = after(Bid("a", "ann", None, 190), Bid("b", "bob", 180), terms=terms)
    low = Bid("low", "cat", 220)
    assert told(capped, low, terms=terms) == ("TOO_LOW", 190, 240, False)
    raised = place_bid(terms, capped, Bid("c", "ann", None, 205), NOW_US).state
    assert (raised.price, minimum_bid(terms, raised)) == (205, 206)
    assert told(raised, low, terms=terms) is True


def test_a_buy_now_price_counts_below_the_least_next_bid() -> None:
    terms = replace(TERMS, reserve_price=305, buy_now_price=305)
    state = after(ANN, BOB, terms=terms)
    assert told(state, Bid("low", "cat", 304), terms=terms) == TOO_LOW
    assert told(state, Bid("low", "cat", 306), terms=terms) is True
    assert minimum_bid(terms, state) == 310
