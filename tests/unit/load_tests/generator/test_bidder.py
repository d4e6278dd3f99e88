"""A bidder learns from every answer and never bids against themselves."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from load_tests.generator.answers import BidAnswer, Fate, ItemView
from load_tests.generator.bidder import Bidder
from shared.domain.money import MINOR_MAX

ITEM = ItemView("lot", current_bid=1000, min_next_bid=1001, highest_bidder_id="grace", bid_count=3, seq=3, epoch=1)


def bidder(spread_minor: int = 0) -> Bidder:
    return Bidder("ada", spread_minor, Random(1))


def test_without_having_seen_the_item_a_bidder_looks_first() -> None:
    assert bidder().next_amount("lot") is None


def test_the_least_needed_amount_without_a_spread() -> None:
    ada = bidder()
    ada.saw_item(ITEM)
    assert ada.next_amount("lot") == 1001
    assert ada.next_amount("other") is None


@given(spread=st.integers(0, 10_000), minimum=st.integers(1, MINOR_MAX))
def test_a_bid_is_at_least_the_minimum_at_most_the_spread_above_and_a_legal_amount(spread: int, minimum: int) -> None:
    ada = Bidder("ada", spread, Random(2))
    ada.saw_item(ItemView("lot", 0, minimum, None, 0, 0, 1))
    amount = ada.next_amount("lot")
    assert amount is not None
    assert minimum <= amount <= min(minimum + spread, MINOR_MAX)


def test_a_refusal_teaches_the_new_minimum() -> None:
    ada = bidder()
    ada.saw_item(ITEM)
    ada.saw_answer("lot", BidAnswer(Fate.REFUSED, "TOO_LOW", None, 2000, 2001, leading=False))
    assert ada.next_amount("lot") == 2001


def test_a_leader_looks_instead_of_bidding_until_outbid() -> None:
    ada = bidder()
    ada.saw_item(ITEM)
    ada.saw_answer("lot", BidAnswer(Fate.ACCEPTED, "", 4, 1001, 1002, leading=True))
    assert ada.next_amount("lot") is None
    ada.saw_item(ItemView("lot", 1001, 1002, "ada", 4, 4, 1))
    assert ada.next_amount("lot") is None
    ada.saw_item(ItemView("lot", 1500, 1501, "grace", 5, 5, 1))
    assert ada.next_amount("lot") == 1501


def test_after_an_answer_without_a_verdict_the_bidder_looks_again() -> None:
    ada = bidder()
    ada.saw_item(ITEM)
    ada.saw_answer("lot", BidAnswer(Fate.UNKNOWN, "NO_ANSWER"))
    assert ada.next_amount("lot") is None
