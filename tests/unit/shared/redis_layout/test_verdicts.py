"""The verdict line, in both directions."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from shared import names
from shared.domain.money import MINOR_MAX
from shared.messages import BidAccepted
from shared.redis_layout.stored_verdicts import amount_of, fingerprint_of
from shared.redis_layout.verdicts import KEY_REUSED, AcceptedBid, RefusedBid, parse_verdict

ids = st.from_regex(names.STANDING_BID_ID_PATTERN, fullmatch=True)
amounts = st.integers(0, MINOR_MAX)
accepted = st.builds(
    AcceptedBid,
    bid_id=ids,
    seq=st.integers(0, 2**53),
    current_bid=amounts,
    your_bid=amounts,
    min_next_bid=amounts,
    kind=st.sampled_from(["bid", "buy_now"]),
    epoch=st.integers(1, 2**31),
    ts_us=st.integers(0, 2**53),
)


@given(verdict=accepted)
def test_an_accepted_bid_is_read_as_it_was_written(verdict: AcceptedBid) -> None:
    assert parse_verdict(verdict.encode()) == verdict


def test_the_others_are_written_by_the_script_alone() -> None:
    assert parse_verdict(b"R|TOO_LOW|100|0|110|1") == RefusedBid("TOO_LOW", 100, False, 110, True)
    assert parse_verdict(b"K") == KEY_REUSED


def test_the_event_of_a_bid_tells_whether_its_bidder_led_after_it() -> None:
    """A standing maximum beats some bids at once: they are accepted, and do not lead."""
    event = BidAccepted(
        item_id="lot", epoch=1, seq=4, ts_us=9, current_bid=100, highest_bidder_id="bob", bid_count=4, min_next_bid=110,
        status="open", end_us=None, reserve_met=False, currency="USD", bid_id="x", user_id="ann", kind="bid",
        amount=100, previous_bid=50,
    )  # fmt: skip
    told = AcceptedBid("x", 4, 100, 100, False, 110, False, "bid", 1, 9)
    assert AcceptedBid.of_event(event) == told
    assert AcceptedBid.of_event(msgspec.structs.replace(event, user_id="bob")).leads


@given(amount=st.none() | amounts, maximum=st.none() | amounts)
def test_a_fingerprint_tells_what_was_asked_for(amount: int | None, maximum: int | None) -> None:
    assert amount_of(fingerprint_of(amount, maximum)) == amount
    assert fingerprint_of(amount, maximum) == f"{'' if amount is None else amount},{'' if maximum is None else maximum}"
