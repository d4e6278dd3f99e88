"""The lots of the demo: what is on sale, and on which terms. Pure: the same seed gives the same lots."""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Final

import msgspec

from shared.domain.money import exponent_of, format_amount

SELLER_ID: Final = "demo-gallery"
"""Who sells the lots."""


class Kind(StrEnum):
    """What a lot demonstrates."""

    BRIEF = "brief"
    """Ends after seconds, so that the catalogue has something that was sold."""
    RUSH = "rush"
    """Ends within minutes, and late bids move its end."""
    RESERVE = "reserve"
    """Sold only at a price that nobody knows."""
    BUY_NOW = "buy_now"
    """May be taken at once at a named price."""
    LADDER = "ladder"
    """Hidden maxima outbid each other; the steps grow with the price."""
    SCHEDULED = "scheduled"
    """Opens a little later."""
    STEADY = "steady"
    """Nothing special, with plenty of time."""


FIRST: Final = (
    Kind.BRIEF,
    Kind.RUSH,
    Kind.LADDER,
    Kind.RESERVE,
    Kind.BUY_NOW,
    Kind.SCHEDULED,
    Kind.STEADY,
    Kind.RUSH,
    Kind.LADDER,
    Kind.RESERVE,
    Kind.STEADY,
    Kind.BUY_NOW,
)
"""The lots that the demo begins with, in order. If it needs more, it begins again with the first one."""

_LATER: Final = (Kind.RUSH, Kind.RUSH, Kind.LADDER, Kind.RESERVE, Kind.BUY_NOW, Kind.SCHEDULED, Kind.STEADY)

# How many seconds a lot of a kind is open, at least and at most.
_LENGTHS: Final[dict[Kind, tuple[int, int]]] = {
    Kind.BRIEF: (8, 12),
    Kind.RUSH: (75, 150),
    Kind.RESERVE: (180, 420),
    Kind.BUY_NOW: (240, 480),
    Kind.LADDER: (180, 420),
    Kind.SCHEDULED: (180, 300),
    Kind.STEADY: (420, 900),
}


@dataclass(frozen=True, slots=True)
class Ware:
    """Something to sell; ``worth`` is in major units."""

    name: str
    description: str
    worth: int
    currency: str = "USD"


WARES: Final = (
    Ware("Walnut writing desk, 1962", "Two drawers, brass pulls, one old ring mark on the top.", 640),
    Ware("Leica M3 with 50 mm lens", "Serviced last year. The light meter is missing, as it should be.", 1450),
    Ware("Marine chronometer", "In a mahogany box with its key. Gains two seconds a day.", 2100, "GBP"),
    Ware("First edition atlas of the stars", "Hand coloured plates, rebound around 1900.", 880, "EUR"),
    Ware("Cast-iron garden bench", "Fern pattern, needs paint. Heavy: bring a friend.", 220),
    Ware("Upright piano", "Tuned in spring. Ground floor, wide door.", 900, "EUR"),
    Ware("Raku tea bowl", "Signed, with its wooden box.", 86_000, "JPY"),
    Ware("Enamel railway sign", "From a branch line that closed in 1964.", 310, "GBP"),
    Ware("Road bicycle, steel frame", "56 cm, new tyres, down-tube shifters.", 420, "EUR"),
    Ware("Pair of studio monitors", "Boxes, cables and one careful owner.", 530),
    Ware("Persian runner", "80 by 310 cm, wool, an even wear.", 760),
    Ware("Arcade cabinet", "Plays. The coin slot takes tokens, which are included.", 990),
    Ware("Brass sextant", "A working instrument, not a copy for the wall.", 340, "GBP"),
    Ware("Teak lounge chair", "New webbing, cushions recovered in grey wool.", 480, "EUR"),
    Ware("Vinyl collection, 200 records", "Mostly jazz from 1955 to 1970, a list is in the box.", 650),
    Ware("Woodblock print of a harbour", "Later impression, good colours, framed.", 54_000, "JPY"),
    Ware("Mechanical typewriter", "QWERTZ, every key strikes, new ribbon.", 160, "EUR"),
    Ware("Globe with relief", "Lit from inside. Some borders have moved since.", 190),
    Ware("Telescope, 150 mm reflector", "With two eyepieces and a mount that holds still.", 380),
    Ware("Copper still, 5 litres", "For lavender and such.", 240, "EUR"),
    Ware("Espresso machine, lever", "Restored, with spare seals.", 720, "EUR"),
    Ware("Model steam engine", "Runs on spirit tablets. Runs well.", 290, "GBP"),
    Ware("Stoneware vase, ash glaze", "31 cm high, no chips.", 180),
    Ware("Drafting lamp", "Clamps to the table, reaches far.", 95, "EUR"),
    Ware("Cello bow", "Silver mounted, rehaired.", 1200, "GBP"),
    Ware("Sailing dinghy with trailer", "Lies dry since September. New mainsheet.", 1800),
    Ware("Botanical plates, set of six", "Framed alike, light foxing.", 270, "GBP"),
    Ware("Film projector, 16 mm", "Runs, hums, smells of warm dust.", 330),
)


@dataclass(frozen=True, slots=True)
class Lot:
    """One lot. Amounts are minor units of its currency, lengths are seconds."""

    item_id: str
    kind: Kind
    ware: Ware
    worth: int
    start_price: int
    length_s: int
    starts_in_s: int = 0
    reserve: int | None = None
    buy_now: int | None = None

    def amount(self, minor: int) -> msgspec.Raw:
        """An amount as the exact JSON number that the API takes."""
        return msgspec.Raw(format_amount(minor, exponent_of(self.ware.currency)).encode())

    def body(self, now: datetime) -> bytes:
        """What to send to ``POST /api/v1/items``."""
        content: dict[str, Any] = {
            "id": self.item_id,
            "name": self.ware.name,
            "description": self.ware.description,
            "currency": self.ware.currency,
            "seller_id": SELLER_ID,
            "start_price": self.amount(self.start_price),
            "duration_s": self.length_s,
            "increment": _increment(self),
        }
        if self.starts_in_s:
            content["start_time"] = (now + timedelta(seconds=self.starts_in_s)).isoformat()
        if self.reserve is not None:
            content["reserve_price"] = self.amount(self.reserve)
        if self.buy_now is not None:
            content["buy_now_price"] = self.amount(self.buy_now)
        if self.kind in (Kind.RUSH, Kind.LADDER, Kind.RESERVE):
            content["soft_close"] = {"trigger_s": 20, "extend_s": 20, "max_count": 5}
        return msgspec.json.encode(content)


class LotPlanner:
    """Makes one lot after the other.

    Args:
        chance: decides everything; the same seed makes the same lots.
        tag: makes the ids differ from those of other runs; letters and digits.
    """

    def __init__(self, chance: random.Random, tag: str) -> None:
        self._chance = chance
        self._tag = tag
        self._made = 0
        self._wares: list[Ware] = []

    def first(self, count: int) -> list[Lot]:
        """The lots to begin with: one of each kind, as far as ``count`` goes."""
        return [self._make(FIRST[number % len(FIRST)]) for number in range(count)]

    def next(self) -> Lot:
        """A lot in place of one that is over."""
        return self._make(self._chance.choice(_LATER))

    def _make(self, kind: Kind) -> Lot:
        if not self._wares:
            self._wares = list(WARES)
            self._chance.shuffle(self._wares)
        ware = self._wares.pop()
        self._made += 1
        worth: int = ware.worth * 10 ** exponent_of(ware.currency)
        length_s = self._chance.randint(*_LENGTHS[kind])
        reserve = _round(worth * 7 // 10) if kind in (Kind.RESERVE, Kind.BUY_NOW) else None
        return Lot(
            item_id=f"{_slug(ware.name)}-{self._tag}-{self._made}",
            kind=kind,
            ware=ware,
            worth=worth,
            start_price=_round(worth * self._chance.randint(5, 20) // 100),
            length_s=length_s,
            starts_in_s=self._chance.randint(30, 90) if kind is Kind.SCHEDULED else 0,
            reserve=reserve,
            buy_now=_round(worth * 6 // 5) if kind is Kind.BUY_NOW else None,
        )


def _increment(lot: Lot) -> dict[str, Any]:
    """The increments: a ladder that grows with the price, or about one hundredth of the worth."""
    if lot.kind is Kind.LADDER:
        return {"kind": "ladder"}
    if lot.kind is Kind.STEADY:
        return {"kind": "percent", "value": 5}
    return {"kind": "flat", "value": lot.amount(_round(max(1, lot.worth // 80)))}


def _round(minor: int) -> int:
    """The amount rounded to two digits, as people name prices; at least 1."""
    scale: int = 10 ** max(0, len(str(minor)) - 2)
    return max(1, minor // scale * scale)


def _slug(name: str) -> str:
    words: list[str] = re.findall(r"[a-z0-9]+", name.lower())
    return "-".join(words[:3])
