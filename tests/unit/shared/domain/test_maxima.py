"""What is worked out of the rows of plain bids is what the rules had: random histories through both."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from shared.domain.auction import Terms, opening_state
from shared.domain.bidding import Accepted, Bid, BidPlaced, place_bid
from shared.domain.increments import Increment
from shared.domain.maxima import Maxima

TERMS = st.builds(
    Terms,
    item_id=st.just("lot"),
    start_us=st.just(0),
    start_price=st.sampled_from([0, 100]),
    reserve_price=st.sampled_from([None, 1_500]),
    buy_now_price=st.sampled_from([None, 2_000]),
    increment=st.sampled_from([Increment("flat", 10), Increment("percent", 500)]),
)
BIDS = st.lists(
    st.tuples(
        st.sampled_from(["ann", "bob", "cyd"]),
        st.integers(1, 60).map(lambda tens: tens * 50),
        # Some of the bids before the history's last fact had a maximum.
        st.one_of(st.none(), st.integers(0, 1_000)),
    ),
    max_size=40,
)


# Few of a hundred random histories have two leaders after the known bids.
@example(terms=Terms("lot", 0), bids=[("ann", 1_000, None), ("bob", 1_500, None), ("cyd", 3_000, None)], known=0)
@example(terms=Terms("lot", 0), bids=[("ann", 1_000, 500), ("bob", 1_200, None), ("cyd", 3_000, None)], known=1)
@given(terms=TERMS, bids=BIDS, known=st.integers(0, 40))
def test_plain_bids_move_the_maxima_as_the_rules_do(
    terms: Terms, bids: list[tuple[str, int, int | None]], known: int
) -> None:
    """``known`` bids come before a fact that tells the maxima; from there on all bids are plain."""
    state, maxima = opening_state(terms, 0), Maxima()
    for number, (user, amount, above) in enumerate(bids):
        is_known = number < known
        maximum = amount + above if is_known and above is not None else None
        outcome = place_bid(terms, state, Bid(f"b{number}", user, amount, maximum), now_us=1)
        state = outcome.state
        if is_known:
            maxima = Maxima(state.leader or "", state.leader_max, state.runner_up)
            continue
        if not isinstance(outcome.verdict, Accepted):
            continue
        for event in outcome.events:
            if isinstance(event, BidPlaced):
                leads = outcome.verdict.leads or event.kind == "proxy"
                maxima = maxima.after(event.user_id, event.amount, event.kind, leads=leads)
        assert maxima == Maxima(state.leader or "", state.leader_max, state.runner_up)
