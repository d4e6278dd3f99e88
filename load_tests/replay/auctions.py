"""Recorded auctions: reads the CSV and nothing else. Amounts stay exact: text to ``Decimal`` to minor units.

The columns are those of the public eBay data of *Modeling Online Auctions* (Jank and Shmueli, 2010): one row
per bid, the rows of an auction carrying its opening bid, closing price, item and duration each time.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

from load_tests.generator.answers import minor_units
from shared.domain.money import MINOR_MAX
from shared.names import is_user_id

COLUMNS = ("auction", "max_bid", "day", "bidder", "opening_bid", "closing_price", "item", "duration_days")

EXPONENT = 2
"""Decimals of the amounts: US dollars."""

_ROWS_MAX = 2_000_000
_DAYS_MAX = 366
_AUCTION = re.compile(r"[A-Za-z0-9_-]{1,32}\Z")
# No sign, no exponent, no blanks, no NaN.
_NUMBER = re.compile(r"[0-9]{1,17}(\.[0-9]{1,12})?\Z")


class CsvError(Exception):
    """The file is not what is expected; names the line and, where there is one, the column."""

    def __init__(self, path: Path, line: int, column: str | None, reason: str) -> None:
        self.line = line
        self.column = column
        place = f"line {line}" + (f", column {column}" if column else "")
        super().__init__(f"{path}: {place}: {reason}")


@dataclass(frozen=True, slots=True)
class RecordedBid:
    """One row. ``max_bid`` is the maximum that the bidder entered, in minor units; ``day`` counts from the
    start.
    """

    number: int
    bidder: str
    max_bid: int
    day: Decimal


@dataclass(frozen=True, slots=True)
class RecordedAuction:
    """One auction with its bids in order of ``day``, rows of the same instant in the order of the file.

    Amounts in minor units. ``number`` of a bid is its place in the file within the auction, from 1, and so
    stays the same however the bids are sorted.
    """

    auction: str
    name: str
    opening_bid: int
    closing_price: int
    duration_days: Decimal
    bids: tuple[RecordedBid, ...]


@dataclass(frozen=True, slots=True)
class _Head:
    """What every row of an auction repeats."""

    name: str
    opening_bid: int
    closing_price: int
    duration_days: Decimal


@dataclass(frozen=True, slots=True)
class Recording:
    """A whole file. ``notes`` are oddities that were read over, each with its line and column."""

    auctions: tuple[RecordedAuction, ...]
    notes: tuple[str, ...]


def read_recording(path: Path) -> Recording:
    """Read a whole file; the auctions come in the order in which they begin.

    What the rows of an auction repeat (its opening bid, say) is taken from its first row. A later row that
    differs there is noted and its bid still counts: real recordings have such rows.

    Raises:
        CsvError: a line is not as expected.
        OSError: the file cannot be read.
    """
    heads: dict[str, _Head] = {}
    bids: dict[str, list[RecordedBid]] = {}
    notes: list[str] = []
    for line, row in _rows(path):
        auction, head, bid = _read_row(path, line, row, len(bids.get(row["auction"], ())) + 1)
        known = heads.setdefault(auction, head)
        if known != head:
            column = _first_difference(known, head)
            notes.append(f"line {line}, column {column}: {row[column]} differs from the first row of auction {auction}")
        bids.setdefault(auction, []).append(bid)
    if not heads:
        raise CsvError(path, 1, None, "there are no bids below the header")
    auctions = tuple(
        RecordedAuction(
            auction=auction,
            name=head.name,
            opening_bid=head.opening_bid,
            closing_price=head.closing_price,
            duration_days=head.duration_days,
            bids=tuple(sorted(bids[auction], key=lambda bid: bid.day)),
        )
        for auction, head in heads.items()
    )
    return Recording(auctions, tuple(notes))


def _rows(path: Path) -> Iterator[tuple[int, dict[str, str]]]:
    """Every data row by column name, with the number of the line on which it ends."""
    with path.open("rb") as file:
        reader = csv.reader(_lines(path, file), strict=True)
        try:
            header = next(reader, [])
            missing = [column for column in COLUMNS if column not in header]
            if missing:
                raise CsvError(path, 1, missing[0], f"the header has no such column; needed: {', '.join(COLUMNS)}")
            for count, fields in enumerate(reader):
                if not fields:
                    continue
                if count >= _ROWS_MAX:
                    raise CsvError(path, reader.line_num, None, f"more than {_ROWS_MAX:,} rows")
                if len(fields) != len(header):
                    reason = f"{len(fields)} fields where the header has {len(header)}"
                    raise CsvError(path, reader.line_num, None, reason)
                yield reader.line_num, dict(zip(header, fields, strict=True))
        except csv.Error as error:
            raise CsvError(path, reader.line_num, None, str(error)) from error


def _lines(path: Path, file: Iterable[bytes]) -> Iterator[str]:
    """Decoded line by line, so that a stray byte is reported with its line."""
    for number, line in enumerate(file, 1):
        try:
            text = line.decode("utf-8-sig" if number == 1 else "utf-8")
        except UnicodeDecodeError as error:
            raise CsvError(path, number, None, f"is not UTF-8 at byte {error.start + 1} of the line") from error
        if "\0" in text:
            raise CsvError(path, number, None, "has a NUL character; this is not a CSV file")
        yield text


def _read_row(path: Path, line: int, row: dict[str, str], number: int) -> tuple[str, _Head, RecordedBid]:
    auction, bidder, name = row["auction"], row["bidder"], row["item"].strip()
    if not _AUCTION.match(auction):
        raise CsvError(path, line, "auction", f"{auction[:64]!r} is not 1 to 32 of A-Z a-z 0-9 _ -")
    if not is_user_id(bidder):
        raise CsvError(path, line, "bidder", f"{bidder[:64]!r} is not 1 to 64 of A-Z a-z 0-9 _ . @ -")
    if not 1 <= len(name) <= 200:
        raise CsvError(path, line, "item", "the name must have 1 to 200 characters")
    head = _Head(
        name=name,
        opening_bid=_amount(path, line, row, "opening_bid", minimum=0),
        closing_price=_amount(path, line, row, "closing_price", minimum=0),
        duration_days=_number(path, line, row, "duration_days"),
    )
    day = _number(path, line, row, "day")
    if day > _DAYS_MAX:
        raise CsvError(path, line, "day", f"{day} is more than {_DAYS_MAX} days after the start")
    return auction, head, RecordedBid(number, bidder, _amount(path, line, row, "max_bid", minimum=1), day)


def _number(path: Path, line: int, row: dict[str, str], column: str) -> Decimal:
    text = row[column].strip()
    if not _NUMBER.match(text):
        raise CsvError(path, line, column, f"{text[:64]!r} is not a number of at least 0, such as 12.50")
    return Decimal(text)


def _amount(path: Path, line: int, row: dict[str, str], column: str, *, minimum: int) -> int:
    value = _number(path, line, row, column)
    try:
        minor = minor_units(value, EXPONENT)
    except ValueError as error:
        raise CsvError(path, line, column, str(error)) from error
    if not minimum <= minor <= MINOR_MAX:
        raise CsvError(path, line, column, f"{value} is out of range")
    return minor


def _first_difference(known: _Head, head: _Head) -> str:
    columns = {"item": "name", "opening_bid": "opening_bid", "closing_price": "closing_price"}
    differing = (column for column, field in columns.items() if getattr(known, field) != getattr(head, field))
    return next(differing, "duration_days")
