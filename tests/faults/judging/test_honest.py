"""Whatever an honest platform does is accepted: random terms and random histories, with maxima, voids and pauses."""

from __future__ import annotations

from typing import Literal

from hypothesis import given
from hypothesis import strategies as st

from shared.domain.auction import Status, Terms
from shared.domain.errors import StateConflict
from shared.domain.increments import Increment, default_ladder
from tests.faults.judging.honest import SECOND_US, Honest
from tests.faults.rig.history import violations
from tests.histories import ending_at, soft_closes

KEYS: tuple[Literal["bid_id", "header", "none"], ...] = ("bid_id", "header", "none")
USERS = ("ann", "bob", "cid", "sel")


# Those that do not fall as prices rise: with them every bid that is left after a void is high enough.
_INCREMENTS = st.one_of(
    st.integers(1, 50).map(lambda value: Increment("flat", value)),
    st.integers(1, 3_000).map(lambda value: Increment("percent", value)),
    st.just(default_ladder(2)),
)
_START_PRICES = st.integers(0, 100)
_RESERVE_ABOVE = st.one_of(st.none(), st.integers(0, 300))
_BUY_NOW_ABOVE = st.one_of(st.none(), st.integers(0, 500))
_ENDS_US = st.one_of(st.none(), st.integers(10, 90).map(lambda s: s * SECOND_US))
_STARTS_US = st.sampled_from([0, 5 * SECOND_US])
_SOFT_CLOSES = st.one_of(st.none(), soft_closes())


@st.composite
def terms(draw: st.DrawFn) -> Terms:
    start_price = draw(_START_PRICES)
    above = draw(_RESERVE_ABOVE)
    reserve = None if above is None else max(start_price, 1) + above
    above = draw(_BUY_NOW_ABOVE)
    end_us = draw(_ENDS_US)
    return Terms(
        "lot",
        draw(_STARTS_US),
        seller_id="sel",
        start_price=start_price,
        reserve_price=reserve,
        buy_now_price=None if above is None else max(start_price, reserve or 1, 1) + above,
        increment=draw(_INCREMENTS),
        end_us=end_us,
        soft_close=None if end_us is None else ending_at(draw(_SOFT_CLOSES), end_us),
    )


_LENGTHS = st.integers(1, 25)
_STEPS = st.sampled_from(["bid"] * 12 + ["read", "pause", "resume", "extend", "void", "void", "cancel"])
_AMOUNTS_ABOVE = st.one_of(st.none(), st.integers(-4, 55))
_MAXIMA_ABOVE = st.one_of(st.none(), st.integers(0, 300))
_BIDDERS = st.tuples(st.sampled_from(USERS), st.sampled_from(KEYS))


@given(terms(), st.data())
def test_an_honest_platform_is_accepted(item_terms: Terms, data: st.DataObject) -> None:
    item = Honest(item_terms)
    for number in range(data.draw(_LENGTHS)):
        step = data.draw(_STEPS)
        if item.state.end_us is not None and item.state.status is Status.OPEN and item.now_us >= item.state.end_us:
            item.close()
        if step == "bid":
            above, maximum_above = data.draw(_AMOUNTS_ABOVE), data.draw(_MAXIMA_ABOVE)
            amount = None if above is None else max(1, item.state.price + above)
            maximum = None if maximum_above is None else item.state.price + maximum_above
            if amount is not None:
                maximum = None if maximum is None else max(amount, maximum)
            elif not maximum:
                maximum = 10
            user, key = data.draw(_BIDDERS)
            item.bid(f"bid-{number}", user, amount, maximum, key=key)
        elif step == "read":
            item.read()
        elif step == "void":
            _void(item, data)
        else:
            # What the state does not allow is not done.
            try:
                item.operate(step)
            except StateConflict:
                continue
    history = item.history()
    assert violations(history) == []
    assert history.replay.is_whole
    assert (history.lost, history.doubled, history.hidden) == (0, 0, 0)


def _void(item: Honest, data: st.DataObject) -> None:
    standing = item.standing()
    if standing and item.state.status is not Status.CANCELLED:
        item.operate("void", data.draw(st.sampled_from(standing)))
