"""Reads the worked examples of ``docs/rules.md``: the page is the test's data."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from shared.domain.auction import State, Terms, minimum_bid
from shared.domain.bidding import Accepted, Bid, Verdict
from shared.domain.increments import Increment, default_ladder
from shared.domain.soft_close import SoftClose

PAGE = Path(__file__).parents[2] / "docs" / "rules.md"
START_US = 1_800_000_000_000_000
_SECOND_US = 1_000_000
_TERM = r"(start|increment|ladder|reserve|buy-now|seller|starts|end|soft close|hard end)(?: (.+))?"


@dataclass(frozen=True)
class Row:
    """One bid, or the bid that is struck, and what the page says of it."""

    now_us: int
    bid: Bid | None
    strikes: str | None
    answer: str
    price: int
    leads: str | None
    minimum: int
    end_us: int | None


@dataclass(frozen=True)
class Example:
    """A table and the terms above it."""

    name: str
    terms: Terms
    rows: tuple[Row, ...]


def examples() -> Iterator[Example]:
    """Every table of the page that follows a line of terms."""
    section, terms, lines = "", None, list[str]()
    for line in [*PAGE.read_text().splitlines(), ""]:
        if line.startswith("## "):
            section = line[3:]
        elif line.startswith("Terms: "):
            terms = line.removeprefix("Terms: ")
        elif line.startswith("|") and terms is not None:
            lines.append(line)
        elif lines and terms is not None:
            yield _example(section, terms, lines)
            terms, lines = None, []


def _example(section: str, terms_text: str, lines: list[str]) -> Example:
    table = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    header, rows = table[0], table[2:]
    terms = _terms(terms_text)
    parsed = [_row(dict(zip(header, row, strict=True)), number) for number, row in enumerate(rows, start=1)]
    return Example(f"{section}: {terms_text}: {rows[0][header.index('bid')]}", terms, tuple(parsed))


def cents(text: str) -> int:
    return int(Decimal(text) * 100)


def _instant(text: str) -> int:
    return START_US + int(text.removesuffix(" s")) * _SECOND_US


def _terms(text: str) -> Terms:
    found: dict[str, str] = {}
    for part in text.split(", "):
        match = re.fullmatch(
            r"(start|increment|ladder|reserve|buy-now|seller|starts|end|soft close|hard end)(?: (.+))?", part
        )
        assert match is not None, f"docs/rules.md: terms not understood: {part!r}"
        found[match[1]] = match[2] or ""
    soft_close = None
    if "soft close" in found:
        numbers, _, mode = found["soft close"].partition(" from ")
        trigger, extend, *count = (int(number) for number in numbers.split("/"))
        hard_end = _instant(found["hard end"]) if "hard end" in found else None
        soft_close = SoftClose(
            trigger * _SECOND_US,
            extend * _SECOND_US,
            "from_bid" if mode == "bid" else "from_end",
            count[0] if count else 0,
            hard_end,
        )
    return Terms(
        item_id="example",
        start_us=_instant(found["starts"]) if "starts" in found else START_US,
        start_price=cents(found["start"]),
        increment=_increment(found),
        reserve_price=cents(found["reserve"]) if "reserve" in found else None,
        buy_now_price=cents(found["buy-now"]) if "buy-now" in found else None,
        seller_id=found.get("seller"),
        end_us=_instant(found["end"]) if "end" in found else None,
        soft_close=soft_close,
    )


def _increment(found: dict[str, str]) -> Increment:
    if "ladder" in found:
        return default_ladder(2)
    value = found["increment"]
    if value.endswith("%"):
        return Increment("percent", cents(value.removesuffix("%")))
    return Increment("flat", cents(value))


def _row(cells: dict[str, str], number: int) -> Row:
    struck = re.fullmatch(r"strike (\d+)", cells["bid"])
    bid = None if struck is not None else _bid(cells["bid"], number)
    return Row(
        now_us=_instant(cells["time"]) if "time" in cells else START_US + number * _SECOND_US,
        bid=bid,
        strikes=None if struck is None else f"bid-{struck[1]}",
        answer=cells["answer"],
        price=cents(cells["price"]),
        leads=None if cells["leads"] == "-" else cells["leads"],
        minimum=cents(cells["next"]),
        end_us=_instant(cells["end"]) if "end" in cells else None,
    )


def _bid(text: str, number: int) -> Bid:
    match = re.fullmatch(r"(\w+)(?: (\d[\d.]*))?(?: up to (\d[\d.]*))?", text)
    assert match is not None, text
    amount, maximum = (None if part is None else cents(part) for part in match.groups()[1:])
    return Bid(f"bid-{number}", match[1], amount, maximum)


def answer_of(verdict: Verdict, state: State) -> str:
    """A verdict in the page's words."""
    if not isinstance(verdict, Accepted):
        return f"refused: {verdict.code}"
    if verdict.raised:
        return "maximum raised"
    if verdict.kind == "buy_now":
        return "bought"
    if not verdict.leads:
        return "accepted, outbid at once"
    return "accepted" if state.reserve_met else "accepted, reserve not met"


def check(row: Row, terms: Terms, state: State, answer: str) -> None:
    """What the page says after a row, against what is."""
    what = row.strikes or row.bid
    assert answer == row.answer, what
    assert (state.price, state.leader, minimum_bid(terms, state)) == (row.price, row.leads, row.minimum), what
    if row.end_us is not None:
        assert state.end_us == row.end_us, what
