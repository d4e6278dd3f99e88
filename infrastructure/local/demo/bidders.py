"""The simulated bidders: who would bid what, and when. Pure: what they see, the time and chance are arguments."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from infrastructure.local.demo.lots import Kind, Lot


class Character(StrEnum):
    """How somebody bids."""

    EARLY_BIRD = "early bird"
    """Bids high at the beginning, to frighten others away, and does not come back."""
    INCREMENTALIST = "incrementalist"
    """Bids the least that counts, again and again."""
    PROXY = "proxy bidder"
    """Leaves a hidden maximum; raises it once."""
    SNIPER = "sniper"
    """Waits for the last seconds."""


EARLY_UNTIL: Final = 0.4
"""The part of a lot's time in which early birds bid."""
SNIPE_S: Final = 12.0
"""How long before the end snipers begin."""
PATIENCE_S: Final = 6.0
"""How long an incrementalist waits before bidding again."""
MAXIMA_MAX: Final = 2
_BUY_NOW_FROM: Final = 0.5
_SEATS_MIN, _SEATS_MAX = 3, 7

_NAMES: Final = (
    "ada", "bela", "carla", "dario", "elif", "farid", "greta", "hugo", "ines", "jonas", "kaya", "luca",
    "maren", "nils", "olga", "pavel", "rosa", "samir", "tilda", "umut", "vera", "wanda", "yuki", "zoe",
)  # fmt: skip
_ORDER: Final = (
    Character.INCREMENTALIST,
    Character.PROXY,
    Character.EARLY_BIRD,
    Character.SNIPER,
    Character.INCREMENTALIST,
)


@dataclass(frozen=True, slots=True)
class Bidder:
    """One simulated person."""

    user_id: str
    character: Character


def crowd(count: int) -> list[Bidder]:
    """``count`` people with different names, of all characters."""
    return [
        Bidder(
            _NAMES[n % len(_NAMES)] + (f"-{n // len(_NAMES) + 1}" if n >= len(_NAMES) else ""), _ORDER[n % len(_ORDER)]
        )
        for n in range(count)
    ]


@dataclass(frozen=True, slots=True)
class LotView:
    """A lot as its page shows it. Amounts in minor units, times in seconds since 1970.

    ``step`` is the difference between two suggested bids.
    """

    status: str
    price: int
    minimum: int
    leader: str | None
    bid_count: int
    starts_s: float
    ends_s: float | None
    step: int = 1
    buy_now: int | None = None

    @property
    def is_over(self) -> bool:
        return self.status in ("sold", "unsold", "cancelled")


@dataclass(frozen=True, slots=True)
class Offer:
    """A bid: an amount, or a hidden maximum alone (which bids the least that is needed, up to it)."""

    amount: int | None = None
    maximum: int | None = None


@dataclass(slots=True)
class Seat:
    """A bidder who is interested in a lot, up to ``limit``.

    Attributes:
        enters: the part of the lot's time, 0 to 1, before which this bidder leaves no maximum.
        wants_now: would rather buy at once than wait.
        last_s: when this bidder bid on this lot last; seconds since 1970.
        maxima: how many hidden maxima this bidder left.
    """

    bidder: Bidder
    limit: int
    enters: float = 0.0
    wants_now: bool = False
    last_s: float = float("-inf")
    maxima: int = 0

    def offer(self, view: LotView, now_s: float, chance: random.Random) -> Offer | None:
        """What this bidder would bid now, if anything. Never more than ``limit``, and never against oneself."""
        if view.status != "open" or view.leader == self.bidder.user_id:
            return None
        part = _part_of_time(view, now_s)
        if self.wants_now and view.buy_now is not None and view.buy_now <= self.limit:
            return Offer(view.buy_now) if part >= _BUY_NOW_FROM else None
        if view.minimum > self._ceiling(part):
            return None
        match self.bidder.character:
            case Character.EARLY_BIRD:
                if part > EARLY_UNTIL:
                    return None
                return Offer(self._within(view, view.minimum + view.step * chance.randint(0, 4)))
            case Character.INCREMENTALIST:
                return Offer(view.minimum) if now_s - self.last_s >= PATIENCE_S else None
            case Character.PROXY:
                if self.maxima >= MAXIMA_MAX or part < self.enters:
                    return None
                return Offer(maximum=self.limit if self.maxima else max(view.minimum, self.limit * 4 // 5))
            case Character.SNIPER:
                if view.ends_s is None or not 0 < view.ends_s - now_s <= SNIPE_S:
                    return None
                return Offer(self._within(view, view.minimum + view.step * chance.randint(1, 3)))

    def _ceiling(self, part: float) -> int:
        """The limit by now: an incrementalist's rises with time, so that a lot gets bids until its end."""
        if self.bidder.character is Character.INCREMENTALIST:
            return round(self.limit * (0.3 + 0.7 * part))
        return self.limit

    def _within(self, view: LotView, amount: int) -> int:
        """The amount, but not above the limit, and not the buy-now price by accident."""
        most = self.limit if view.buy_now is None else min(self.limit, view.buy_now - 1)
        return max(view.minimum, min(amount, most))

    def noted(self, offer: Offer, now_s: float) -> None:
        """Note that the offer was made."""
        self.last_s = now_s
        self.maxima += offer.maximum is not None


def _part_of_time(view: LotView, now_s: float) -> float:
    """The part of the lot's time that is over, 0 to 1; 0 for a lot without an end."""
    if view.ends_s is None or view.ends_s <= view.starts_s:
        return 0.0
    return min(1.0, max(0.0, (now_s - view.starts_s) / (view.ends_s - view.starts_s)))


def seat_bidders(lot: Lot, people: Sequence[Bidder], chance: random.Random) -> list[Seat]:
    """The bidders who are interested in a lot, each with a limit of 60 % to 130 % of its worth.

    If the lot is there to show hidden maxima, at least two of them leave maxima, as long as there are two.
    """
    count = min(len(people), chance.randint(_SEATS_MIN, _SEATS_MAX))
    chosen = chance.sample(list(people), count)
    if lot.kind is Kind.LADDER:
        proxies = [each for each in people if each.character is Character.PROXY]
        wanted = chance.sample(proxies, min(2, len(proxies)))
        chosen = [*wanted, *(each for each in chosen if each not in wanted)][: max(count, len(wanted))]
    seats = [
        Seat(bidder, max(1, lot.worth * chance.randint(60, 130) // 100), enters=chance.uniform(0, 0.8))
        for bidder in chosen
    ]
    if lot.buy_now is not None and seats:
        # One of them can afford it, and is sometimes impatient.
        seats[0].limit = max(seats[0].limit, lot.buy_now)
        seats[0].wants_now = chance.random() < 0.7
    return seats
