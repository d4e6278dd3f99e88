from __future__ import annotations

from decimal import Context, Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.domain.errors import AmountInvalid, CurrencyUnknown
from shared.domain.money import MINOR_MAX, exponent_of, format_amount, parse_amount


@pytest.mark.parametrize(
    ("number", "exponent", "minor"),
    [
        ("12.50", 2, 1_250),
        ("12.5", 2, 1_250),
        ("12", 2, 1_200),
        ("0.01", 2, 1),
        ("90071992547409.91", 2, MINOR_MAX),
        ("9007199254740991", 0, MINOR_MAX),
        ("1.5e1", 2, 1_500),
        ("1E2", 0, 100),
        ("12345e-2", 2, 12_345),
        ("0.125", 3, 125),
        ("12.0000", 2, 1_200),
        ("10.000", 0, 10),
        ("1.000000e1", 2, 1_000),
        ("120e-1", 2, 1_200),
        ("0.1200e2", 2, 1_200),
        ("0.0000000001E+11", 0, 10),
        ("1" + "0" * 4_000 + "e-4000", 2, 100),
        ("0." + "0" * 4_000 + "1e4001", 2, 100),
        ("1e-0000000000000000000000000000", 2, 100),
        ("9007199254740991000e-5", 2, MINOR_MAX),
    ],
)
def test_an_amount_is_parsed_exactly(number: str, exponent: int, minor: int) -> None:
    assert parse_amount(number, exponent) == minor


@pytest.mark.parametrize(
    ("number", "exponent", "reason"),
    [
        ("10.001", 2, "has more decimals than the currency, which has 2"),
        ("10.0001", 3, "has more decimals than the currency, which has 3"),
        ("10.5", 0, "has more decimals than the currency, which has 0"),
        ("1e-3", 2, "has more decimals than the currency, which has 2"),
        ("1.000000000000000000000000000001e0", 2, "has more decimals than the currency, which has 2"),
        ("0", 2, "must be more than 0"),
        ("0.00", 2, "must be more than 0"),
        ("-1", 2, "must be more than 0"),
        ("-0.5e1", 2, "must be more than 0"),
        ("90071992547409.92", 2, "must be at most 90071992547409.91"),
        ("9007199254740992", 0, "must be at most 9007199254740991"),
        ("1e400", 2, "is out of range"),
        ("1e-400", 2, "has more decimals"),
        ("0e999999999", 2, "must be more than 0"),
        ("-0", 2, "must be more than 0"),
        ("1e" + "9" * 8_000, 2, "is out of range"),
        ("1e-" + "9" * 8_000, 2, "has more decimals"),
        ("0e" + "9" * 8_000, 2, "must be more than 0"),
        ("1e40", 2, "must be at most 90071992547409.91"),
        ("1e99999", 2, "is out of range"),
        ("9" * 5_000, 2, "is out of range"),
        ("9" * 40, 2, "is out of range"),
        ("9" * 40 + ".5", 2, "is out of range"),
        ("true", 2, "must be a JSON number"),
        ('"12"', 2, "must be a JSON number"),
        ("null", 2, "must be a JSON number"),
        ("NaN", 2, "must be a JSON number"),
        ("012", 2, "must be a JSON number"),
        ("1.", 2, "must be a JSON number"),
        ("+1", 2, "must be a JSON number"),
        ("1\n", 2, "must be a JSON number"),
        ("١", 2, "must be a JSON number"),  # noqa: RUF001  an Arabic digit, which str.isdigit would take
        ("[1]", 2, "must be a JSON number"),
    ],
)
def test_what_is_no_amount_is_refused_with_its_reason(number: str, exponent: int, reason: str) -> None:
    with pytest.raises(AmountInvalid) as caught:
        parse_amount(number, exponent)
    assert reason in str(caught.value)


@given(st.integers(0, 2 * MINOR_MAX), st.integers(-40, 40), st.integers(0, 40), st.sampled_from([0, 2, 3]))
def test_equal_numbers_are_judged_alike(digits: int, power: int, zeros: int, exponent: int) -> None:
    """Whatever the spelling, what the value says."""
    value = Decimal(digits).scaleb(power, Context(prec=100))
    minor = value.scaleb(exponent, Context(prec=100))
    spellings = [f"{digits * 10**zeros}e{power - zeros}", f"{digits}.{'0' * (zeros + 1)}E{power:+d}", f"{value:f}"]
    if 1 <= minor <= MINOR_MAX and minor == minor.to_integral_value():
        assert {parse_amount(spelling, exponent) for spelling in spellings} == {int(minor)}
    else:
        reasons = set()
        for spelling in spellings:
            with pytest.raises(AmountInvalid) as caught:
                parse_amount(spelling, exponent)
            reasons.add(caught.value.reason)
        assert len(reasons) == 1


def test_a_start_price_of_zero_may_be_spelt_in_any_way() -> None:
    assert {parse_amount(zero, 2, minimum_minor=0) for zero in ("0", "0.00", "-0", "0e5", "0.000000e-7")} == {0}
    with pytest.raises(AmountInvalid, match="must not be negative"):
        parse_amount("-1", 2, minimum_minor=0)


@given(st.integers(1, MINOR_MAX), st.sampled_from([0, 2, 3]))
def test_what_is_formatted_is_parsed_back(minor: int, exponent: int) -> None:
    text = format_amount(minor, exponent)
    assert parse_amount(text, exponent) == minor
    assert Decimal(text).scaleb(exponent) == minor


@given(st.decimals(min_value="0.01", max_value="90071992547409.91", places=2))
def test_every_decimal_within_range_is_exact(amount: Decimal) -> None:
    assert parse_amount(f"{amount:f}", 2) == int(amount * 100)


def test_currencies_have_their_iso_decimals() -> None:
    assert [exponent_of(code) for code in ("USD", "EUR", "JPY", "KRW", "BHD", "KWD")] == [2, 2, 0, 0, 3, 3]
    with pytest.raises(CurrencyUnknown):
        exponent_of("XXX")
