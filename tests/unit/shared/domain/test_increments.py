from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.domain.errors import TermsInvalid
from shared.domain.increments import (
    Increment,
    decode_steps,
    default_ladder,
    encode_steps,
    next_minimum,
    suggested_bids,
)
from shared.domain.money import MINOR_MAX


@pytest.mark.parametrize(
    ("price", "increment"),
    [
        (0, 5),
        (99, 5),
        (100, 25),
        (499, 25),
        (500, 50),
        (2_499, 50),
        (2_500, 100),
        (9_999, 100),
        (10_000, 250),
        (25_000, 500),
        (50_000, 1_000),
        (100_000, 2_500),
        (250_000, 5_000),
        (499_999, 5_000),
        (500_000, 10_000),
        (10_000_000, 10_000),
    ],
)
def test_the_default_ladder_is_ebays(price: int, increment: int) -> None:
    assert default_ladder(2).at(price) == increment


def test_the_ladder_in_other_currencies_keeps_the_major_unit() -> None:
    assert default_ladder(3).at(99 * 10) == 50
    assert default_ladder(0).at(0) == 1
    assert default_ladder(0).at(60) == 1
    assert default_ladder(0).at(200) == 3, "2.50, rounded up: nobody is outbid by less than the ladder says"
    assert default_ladder(0).at(300) == 5


@given(st.integers(0, MINOR_MAX), st.integers(1, 10_000))
def test_a_percent_is_rounded_up_and_at_least_one(price: int, basis_points: int) -> None:
    exact = Fraction(price * basis_points, 10_000)
    assert Increment("percent", basis_points).at(price) == max(1, -(-exact.numerator // exact.denominator))


def test_there_is_a_last_bid() -> None:
    assert next_minimum(MINOR_MAX, Increment()) == MINOR_MAX + 1
    assert suggested_bids(MINOR_MAX - 1, Increment()) == (MINOR_MAX - 1, MINOR_MAX)
    assert suggested_bids(MINOR_MAX + 1, Increment()) == ()


def test_suggestions_follow_the_increments() -> None:
    assert suggested_bids(95, default_ladder(2)) == (95, 100, 125)


def test_steps_survive_their_encoding() -> None:
    ladder = default_ladder(2)
    assert decode_steps(encode_steps(ladder)) == ladder.steps
    assert decode_steps("") == ()


@pytest.mark.parametrize(
    "make",
    [
        lambda: Increment("flat", 0),
        lambda: Increment("percent", 10_001),
        lambda: Increment("ladder", 1, ((5, 1), (5, 2))),
        lambda: Increment("ladder", 1, ((6, 1), (5, 2))),
        lambda: Increment("ladder", 1, ((5, 0),)),
        lambda: Increment("ladder", 1, tuple((n, 1) for n in range(1, 40))),
    ],
)
def test_impossible_increments_are_refused(make: object) -> None:
    assert callable(make)
    with pytest.raises(TermsInvalid):
        make()
