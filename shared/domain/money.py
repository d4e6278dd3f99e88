"""Money: integer minor units in the code, exact decimal numbers on the wire.

Amounts are parsed from the text of the JSON number, never through a binary float: ``9007199254740991`` cents is exact
here and would not be as a double with decimals. The decimals of currencies are those of ISO 4217.
"""

from __future__ import annotations

import re
from typing import Final

from shared.domain.errors import AmountInvalid, CurrencyUnknown

MINOR_MAX: Final = 2**53 - 1
"""The largest amount in minor units: the largest integer that a Lua number (a double) holds exactly."""

_EXPONENTS: Final[dict[str, int]] = {
    **dict.fromkeys(
        # ISO 4217 currencies without decimals.
        [
            "BIF",
            "CLP",
            "DJF",
            "GNF",
            "ISK",
            "JPY",
            "KMF",
            "KRW",
            "PYG",
            "RWF",
            "UGX",
            "VND",
            "VUV",
            "XAF",
            "XOF",
            "XPF",
        ],
        0,
    ),
    **dict.fromkeys(["BHD", "IQD", "JOD", "KWD", "LYD", "OMR", "TND"], 3),
    **dict.fromkeys(
        [
            "AED",
            "AFN",
            "ALL",
            "AMD",
            "AOA",
            "ARS",
            "AUD",
            "AWG",
            "AZN",
            "BAM",
            "BBD",
            "BDT",
            "BMD",
            "BND",
            "BOB",
            "BRL",
            "BSD",
            "BTN",
            "BWP",
            "BYN",
            "BZD",
            "CAD",
            "CDF",
            "CHF",
            "CNY",
            "COP",
            "CRC",
            "CUP",
            "CVE",
            "CZK",
            "DKK",
            "DOP",
            "DZD",
            "EGP",
            "ERN",
            "ETB",
            "EUR",
            "FJD",
            "FKP",
            "GBP",
            "GEL",
            "GHS",
            "GIP",
            "GMD",
            "GTQ",
            "GYD",
            "HKD",
            "HNL",
            "HTG",
            "HUF",
            "IDR",
            "ILS",
            "INR",
            "IRR",
            "JMD",
            "KES",
            "KGS",
            "KHR",
            "KPW",
            "KYD",
            "KZT",
            "LAK",
            "LBP",
            "LKR",
            "LRD",
            "LSL",
            "MAD",
            "MDL",
            "MGA",
            "MKD",
            "MMK",
            "MNT",
            "MOP",
            "MRU",
            "MUR",
            "MVR",
            "MWK",
            "MXN",
            "MYR",
            "MZN",
            "NAD",
            "NGN",
            "NIO",
            "NOK",
            "NPR",
            "NZD",
            "PAB",
            "PEN",
            "PGK",
            "PHP",
            "PKR",
            "PLN",
            "QAR",
            "RON",
            "RSD",
            "RUB",
            "SAR",
            "SBD",
            "SCR",
            "SDG",
            "SEK",
            "SGD",
            "SHP",
            "SLE",
            "SOS",
            "SRD",
            "SSP",
            "STN",
            "SVC",
            "SYP",
            "SZL",
            "THB",
            "TJS",
            "TMT",
            "TOP",
            "TRY",
            "TTD",
            "TWD",
            "TZS",
            "UAH",
            "USD",
            "UYU",
            "UZS",
            "VES",
            "WST",
            "XCD",
            "YER",
            "ZAR",
            "ZMW",
        ],
        2,
    ),
}

DEFAULT_CURRENCY: Final = "USD"
SCALE: Final = (1, 10, 100, 1_000)
"""Minor units per major unit, by the decimals of the currency."""

# The common forms: no exponent, and at most the currency's decimals. 17 digits are more than MINOR_MAX has.
_PLAIN: Final = tuple(
    re.compile(rf"(0|[1-9][0-9]{{0,16}})(?:\.([0-9]{{1,{decimals}}}))?\Z") for decimals in (1, 1, 2, 3)
)
_NUMBER: Final = re.compile(r"(-?)(0|[1-9][0-9]*)(?:\.([0-9]+))?(?:[eE]([+-]?[0-9]+))?\Z")
_DIGITS_MAX: Final = 16
"""The digits of MINOR_MAX."""
_EXPONENT_DIGITS_MAX: Final = 9
"""With a longer exponent (without leading zeros), no literal has enough digits to be a valid amount."""


def exponent_of(currency: str) -> int:
    """Decimals of a currency (0, 2 or 3), by ISO 4217.

    Raises:
        CurrencyUnknown: not an ISO 4217 code of a currency in use.
    """
    try:
        return _EXPONENTS[currency]
    except KeyError:
        raise CurrencyUnknown(currency) from None


def parse_amount(number: str, exponent: int, *, minimum_minor: int = 1) -> int:
    """The minor units of an amount, from the text of a JSON number.

    Args:
        number: the literal from the request, for example ``"12.50"``.
        exponent: decimals of the currency, 0 to 3.
        minimum_minor: the least valid amount; 1 for bids, 0 for start prices.

    Returns:
        ``minimum_minor`` to ``MINOR_MAX``.

    Raises:
        AmountInvalid: not a JSON number, more decimals than the currency has, or out of range. The value decides, not
            its form: 12.0000 and 120e-1 are 12. The work is bounded by the length of the text.
    """
    match = _PLAIN[exponent].match(number)
    whole, fraction = ("", "") if match is None else match.groups("")
    if whole and (exponent or not fraction):
        minor = int(whole + fraction.ljust(exponent, "0"))
    else:
        minor = _parse_slowly(number, exponent)
    if minor < minimum_minor:
        raise AmountInvalid(number, "must be more than 0" if minimum_minor else "must not be negative")
    if minor > MINOR_MAX:
        raise AmountInvalid(number, _out_of_range(exponent))
    return minor


def _parse_slowly(number: str, exponent: int) -> int:
    """Parse any other form of a number. The text is converted only after it is known to be a small number."""
    match = _NUMBER.match(number)
    if match is None:
        raise AmountInvalid(number, "must be a JSON number, for example 12.50 (no quotes)")
    sign, whole, fraction, power = match[1], match[2], match[3] or "", match[4] or "0"
    digits = (whole + fraction).lstrip("0")
    significant = digits.rstrip("0")
    if not significant:
        return 0
    if sign:
        return -1  # any negative amount is below the minimum
    is_negative, power_digits = power.startswith("-"), power.lstrip("+-0") or "0"
    if len(power_digits) > _EXPONENT_DIGITS_MAX:
        raise AmountInvalid(number, _too_many_decimals(exponent) if is_negative else _out_of_range(exponent))
    # The value is `significant` times ten to the power of `shift` minor units.
    shift = int(power_digits) * (-1 if is_negative else 1) - len(fraction) + len(digits) - len(significant) + exponent
    if len(significant) + shift > _DIGITS_MAX:
        raise AmountInvalid(number, _out_of_range(exponent))
    if shift < 0:
        raise AmountInvalid(number, _too_many_decimals(exponent))
    return int(significant + "0" * shift)


def _out_of_range(exponent: int) -> str:
    return f"is out of range: it must be at most {format_amount(MINOR_MAX, exponent)}"


def _too_many_decimals(exponent: int) -> str:
    return f"has more decimals than the currency, which has {exponent}"


def format_amount(minor: int, exponent: int) -> str:
    """The amount as a JSON number with the currency's decimals: ``1250, 2`` gives ``"12.50"``."""
    if exponent == 2:
        return f"{minor // 100}.{minor % 100:02d}"
    if exponent == 0:
        return str(minor)
    return f"{minor // SCALE[exponent]}.{minor % SCALE[exponent]:0{exponent}d}"


def format_minor(minor: str, exponent: int) -> str:
    """The same for minor units as decimal digits: ``"1250", 2`` gives ``"12.50"``."""
    if exponent == 2 and len(minor) > 2:
        return f"{minor[:-2]}.{minor[-2:]}"
    return format_amount(int(minor), exponent)
