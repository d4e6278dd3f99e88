"""Whatever an honest platform does is accepted: random terms and random histories, with maxima, voids and pauses."""

from __future__ import annotations

from typing import Literal

from hypothesis import given
from hypothesis import strategies as st

from shared.domain.auction import Status, Terms
from shared.domain.errors import StateConflict
from shared.domain.increments import Increment, default_ladder
from tests.faults.history import violations
from tests.faults.judging.honest import SECOND_US, Honest
from tests.histories import soft_closes

KEYS: tuple[Literal["bid_id", "header", "none"], ...] = ("bid_id", "header", "none")
USERS = ("ann", "bob", "cid", "sel")


def increments() -> st.SearchStrategy[Increment]:
    """Those that do not fall as prices rise: with them every bid that is left after a void is high enough."""
    flat = st.integers(1, 50).map(lambda value: Increment("flat", value))
    percent = st.integers(1, 3_000).map(lambda value: Increment("percent", value))
    return st.one_of(flat, percent, st.just(default_ladder(2)))


@st.composite
def terms(draw: st.DrawFn) -> Terms:
    start_price = draw(st.integers(0, 100))
    reserve = draw(st.one_of(st.none(), st.integers(max(start_price, 1), 400)))
    end_us = draw(st.one_of(st.none(), st.integers(10, 90).map(lambda s: s * SECOND_US)))
    return Terms(
        "lot",
        draw(st.sampled_from([0, 5 * SECOND_US])),
        seller_id="sel",
        start_price=start_price,
        reserve_price=reserve,
        buy_now_price=draw(st.one_of(st.none(), st.integers(max(start_price, reserve or 1, 1), 900))),
        increment=draw(increments()),
        end_us=end_us,
        soft_close=None if end_us is None else draw(st.one_of(st.none(), soft_closes(end_us))),
    )


@given(terms(), st.data())
def test_an_honest_platform_is_accepted(item_terms: Terms, data: st.DataObject) -> None:
    item = Honest(item_terms)
    for number in range(data.draw(st.integers(1, 25))):
        step = data.draw(st.sampled_from(["bid"] * 12 + ["read", "pause", "resume", "void", "void", "cancel"]))
        if item.state.end_us is not None and item.state.status is Status.OPEN and item.now_us >= item.state.end_us:
            item.close()
        if step == "bid":
            amount = data.draw(st.one_of(st.none(), st.integers(1, 60).map(lambda more: item.state.price + more - 5)))
            maximum = data.draw(st.one_of(st.none(), st.integers(0, 300).map(lambda more: item.state.price + more)))
            if amount is not None:
                amount = max(1, amount)
                maximum = None if maximum is None else max(amount, maximum)
            elif not maximum:
                maximum = 10
            user, key = data.draw(st.sampled_from(USERS)), data.draw(st.sampled_from(KEYS))
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
