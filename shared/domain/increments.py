"""Bid increments: how much the next bid must add, and the suggested next bids.

All arithmetic is on integers, and every intermediate result stays below 2^53, because ``place_bids.lua`` does the same
with doubles and must get the same numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from shared.domain.errors import TermsInvalid
from shared.domain.money import MINOR_MAX, SCALE

BASIS_POINTS: Final = 10_000
"""A percent increment is in hundredths of a percent: 2.5 % is 250."""

STEPS_MAX: Final = 32

# eBay's bid increments for USD, in cents: (price below, increment).
EBAY_USD_STEPS: Final[tuple[tuple[int, int], ...]] = (
    (100, 5),
    (500, 25),
    (2_500, 50),
    (10_000, 100),
    (25_000, 250),
    (50_000, 500),
    (100_000, 1_000),
    (250_000, 2_500),
    (500_000, 5_000),
)
EBAY_USD_TOP: Final = 10_000
_EBAY_DECIMALS: Final = 2


@dataclass(frozen=True, slots=True)
class Increment:
    """The rule of one item.

    Attributes:
        kind: ``flat`` adds ``value`` minor units, ``percent`` adds ``value`` basis points of the price (rounded up),
            ``ladder`` looks the price up in ``steps``.
        value: minor units or basis points, at least 1; for a ladder the increment above the last step.
        steps: ``(below, increment)`` in minor units, ascending; empty unless ``kind`` is ``ladder``.
    """

    kind: Literal["flat", "percent", "ladder"] = "flat"
    value: int = 1
    steps: tuple[tuple[int, int], ...] = ()

    def __post_init__(self) -> None:
        if not 1 <= self.value <= MINOR_MAX:
            raise TermsInvalid("increment", "value must be more than 0 and fit the currency")
        if self.kind == "percent" and self.value > BASIS_POINTS:
            raise TermsInvalid("increment", "a percent value must be at most 100")
        if len(self.steps) > STEPS_MAX:
            raise TermsInvalid("increment", f"at most {STEPS_MAX} steps")
        bounds = [below for below, _ in self.steps]
        if bounds != sorted(set(bounds)):
            raise TermsInvalid("increment", "the steps' bounds must rise")
        if any(not 1 <= step <= MINOR_MAX for _, step in self.steps):
            raise TermsInvalid("increment", "every step must be more than 0")

    def at(self, price: int) -> int:
        """The increment at a price, in minor units, at least 1."""
        if self.kind == "flat":
            return self.value
        if self.kind == "percent":
            # price * value could exceed 2^53, so whole ten-thousands and the rest are multiplied separately.
            whole, rest = divmod(price, BASIS_POINTS)
            return max(1, whole * self.value + -(-rest * self.value // BASIS_POINTS))
        for below, step in self.steps:
            if price < below:
                return step
        return self.value


def default_ladder(exponent: int) -> Increment:
    """eBay's USD ladder in the major unit of a currency with ``exponent`` decimals; a step is at least 1 minor unit."""

    def scale(cents: int) -> int:
        if exponent >= _EBAY_DECIMALS:
            return cents * SCALE[exponent - _EBAY_DECIMALS]
        return max(1, -(-cents // SCALE[_EBAY_DECIMALS - exponent]))

    steps = tuple((scale(below), scale(step)) for below, step in EBAY_USD_STEPS)
    return Increment("ladder", scale(EBAY_USD_TOP), steps)


def next_minimum(price: int, increment: Increment) -> int:
    """The least next bid above a price; ``MINOR_MAX + 1`` means that no higher bid is possible."""
    return min(price + increment.at(price), MINOR_MAX + 1)


def suggested_bids(minimum: int, increment: Increment, *, count: int = 3) -> tuple[int, ...]:
    """The minimum and the bids one or more increments above it: ``count`` bids, fewer at the end of the range."""
    bids: list[int] = []
    bid = minimum
    while len(bids) < count and bid <= MINOR_MAX:
        bids.append(bid)
        bid = next_minimum(bid, increment)
    return tuple(bids)


def encode_steps(increment: Increment) -> str:
    """The steps as ``below:increment,below:increment``, as the item's hash and the archive have them."""
    return ",".join(f"{below}:{step}" for below, step in increment.steps)


def decode_steps(text: str) -> tuple[tuple[int, int], ...]:
    """The inverse of :func:`encode_steps`."""
    pairs = (pair.split(":") for pair in text.split(",") if pair)
    return tuple((int(below), int(step)) for below, step in pairs)
