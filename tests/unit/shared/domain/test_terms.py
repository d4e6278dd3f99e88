"""Which terms a seller may fix: each bound from both sides."""

from __future__ import annotations

from typing import Any

import pytest

from shared.domain.auction import Status, Terms, opening_state
from shared.domain.errors import TermsInvalid
from shared.domain.increments import BASIS_POINTS, STEPS_MAX, Increment, next_minimum, suggested_bids
from shared.domain.money import MINOR_MAX
from shared.domain.soft_close import SoftClose

START_US, END_US = 1_000, 5_000


def soft(hard_end_us: int | None) -> SoftClose:
    return SoftClose(10, 20, hard_end_us=hard_end_us)


@pytest.mark.parametrize(
    "terms",
    [
        {"start_price": 0},
        {"start_price": MINOR_MAX},
        {"reserve_price": 1},
        {"start_price": 500, "reserve_price": 500},
        {"start_price": 500, "buy_now_price": 500},
        {"start_price": 500, "reserve_price": 700, "buy_now_price": 700},
        {"end_us": START_US + 1},
        {"end_us": END_US, "soft_close": soft(None)},
        {"end_us": END_US, "soft_close": soft(END_US)},
    ],
)
def test_terms_that_just_fit(terms: dict[str, Any]) -> None:
    Terms("lot", START_US, **terms)


@pytest.mark.parametrize(
    ("terms", "field"),
    [
        ({"start_price": -1}, "start_price"),
        ({"start_price": MINOR_MAX + 1}, "start_price"),
        ({"reserve_price": 0}, "reserve_price"),
        ({"start_price": 500, "reserve_price": 499}, "reserve_price"),
        ({"buy_now_price": 0}, "buy_now_price"),
        ({"start_price": 500, "buy_now_price": 499}, "buy_now_price"),
        ({"reserve_price": 700, "buy_now_price": 699}, "buy_now_price"),
        ({"end_us": START_US}, "end_time"),
        ({"soft_close": soft(None)}, "soft_close"),
        ({"end_us": END_US, "soft_close": soft(END_US - 1)}, "soft_close"),
    ],
)
def test_terms_that_just_do_not_fit(terms: dict[str, Any], field: str) -> None:
    with pytest.raises(TermsInvalid) as refused:
        Terms("lot", START_US, **terms)
    assert refused.value.field == field


@pytest.mark.parametrize(("trigger_us", "extend_us", "max_count"), [(0, 1, 0), (1, 0, 0), (1, 1, -1)])
def test_a_soft_close_moves_the_end(trigger_us: int, extend_us: int, max_count: int) -> None:
    with pytest.raises(TermsInvalid):
        SoftClose(trigger_us, extend_us, max_count=max_count)


def test_increments_are_bounded() -> None:
    steps = tuple((100 * number, 5) for number in range(1, STEPS_MAX + 1))
    for increment in (
        Increment("flat", MINOR_MAX),
        Increment("percent", BASIS_POINTS),
        Increment("ladder", 1, steps),
        Increment("ladder", 1, ((100, MINOR_MAX),)),
    ):
        assert increment.at(1) >= 1
    for kind, value, wrong in [
        ("flat", 0, ()),
        ("flat", MINOR_MAX + 1, ()),
        ("percent", BASIS_POINTS + 1, ()),
        ("ladder", 1, (*steps, (10**9, 5))),
        ("ladder", 1, ((100, 5), (100, 6))),
        ("ladder", 1, ((200, 5), (100, 6))),
        ("ladder", 1, ((100, 0),)),
        ("ladder", 1, ((100, MINOR_MAX + 1),)),
    ]:
        with pytest.raises(TermsInvalid):
            Increment(kind, value, wrong)  # type: ignore[arg-type]


def test_at_the_end_of_the_range_no_bid_is_suggested_any_more() -> None:
    by_ten = Increment("flat", 10)
    assert suggested_bids(5, by_ten) == (5, 15, 25)
    assert suggested_bids(MINOR_MAX - 10, by_ten) == (MINOR_MAX - 10, MINOR_MAX)
    assert next_minimum(MINOR_MAX, by_ten) == MINOR_MAX + 1
    assert suggested_bids(MINOR_MAX + 1, by_ten) == ()


@pytest.mark.parametrize(
    ("now_us", "status"),
    [(START_US - 1, Status.SCHEDULED), (START_US, Status.OPEN), (START_US + 1, Status.OPEN)],
)
def test_an_item_is_open_from_its_start_on(now_us: int, status: Status) -> None:
    assert opening_state(Terms("lot", START_US), now_us).status is status
