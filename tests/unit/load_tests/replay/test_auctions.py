"""Reading recorded auctions: exact amounts, and errors that name the line and the column."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest

from load_tests.replay.auctions import COLUMNS, CsvError, read_recording

HEADER = ",".join(COLUMNS)
GOOD = "100,12.5,0.25,bidder_1,1,20.01,Palm Pilot,7"


def write(tmp_path: Path, *lines: str) -> Path:
    path = tmp_path / "bids.csv"
    path.write_text("\n".join(lines) + "\n")
    return path


def test_auctions_with_their_bids_in_order_of_day(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        HEADER,
        "100,12.5,2.75,b1,1,20.01,Palm Pilot,7",
        "200,3,0.1,b9,0.01,3,Xbox,3",
        "100,7.05,0.10,b2,1.00,20.01,Palm Pilot,7",
        "100,8,2.750,b3,1,20.01,Palm Pilot,7.0",
    )
    first, second = read_recording(path).auctions
    assert (first.auction, first.name, first.opening_bid, first.closing_price) == ("100", "Palm Pilot", 100, 2001)
    assert [(bid.number, bid.bidder, bid.max_bid) for bid in first.bids] == [
        (2, "b2", 705),
        (1, "b1", 1250),
        (3, "b3", 800),
    ]
    assert first.bids[1].day == Decimal("2.75")
    assert (second.auction, len(second.bids)) == ("200", 1)


def test_columns_may_come_in_another_order_and_with_others(tmp_path: Path) -> None:
    path = write(tmp_path, f"rate,{','.join(reversed(COLUMNS))}", "5,7,Palm Pilot,20.01,1,bidder_1,0.25,12.5,100")
    (auction,) = read_recording(path).auctions
    assert auction.bids[0].max_bid == 1250


def test_a_byte_order_mark_quotes_and_empty_lines_are_fine(tmp_path: Path) -> None:
    path = tmp_path / "bids.csv"
    path.write_bytes(b"\xef\xbb\xbf" + f'{HEADER}\r\n\r\n100,1,0,b,1,1,"Palm ""Pilot"", new",7\r\n'.encode())
    assert read_recording(path).auctions[0].name == 'Palm "Pilot", new'


def test_a_large_amount_is_exact(tmp_path: Path) -> None:
    path = write(tmp_path, HEADER, GOOD.replace("12.5", "90071992547409.91"))
    assert read_recording(path).auctions[0].bids[0].max_bid == 2**53 - 1


@pytest.mark.parametrize(
    ("field", "value", "column"),
    [
        ("12.5", "12.505", "max_bid"),
        ("12.5", "-1", "max_bid"),
        ("12.5", "0", "max_bid"),
        ("12.5", "", "max_bid"),
        ("12.5", "NaN", "max_bid"),
        ("12.5", "1e3", "max_bid"),
        ("12.5", "12,5", None),
        ("12.5", "90071992547409.92", "max_bid"),
        ("0.25", "soon", "day"),
        ("0.25", "400", "day"),
        ("bidder_1", "bidder 1", "bidder"),
        ("bidder_1", "", "bidder"),
        ("100", "a/b", "auction"),
        ("20.01", "20.0.1", "closing_price"),
        ("Palm Pilot", "", "item"),
        (",7", ",seven", "duration_days"),
    ],
)
def test_a_bad_field_is_named_by_line_and_column(tmp_path: Path, field: str, value: str, column: str | None) -> None:
    path = write(tmp_path, HEADER, GOOD, GOOD.replace(field, value, 1))
    with pytest.raises(CsvError) as raised:
        read_recording(path)
    assert (raised.value.line, raised.value.column) == (3, column)
    assert "line 3" in str(raised.value)
    assert column is None or f"column {column}" in str(raised.value)


@pytest.mark.parametrize(
    ("field", "value", "column"),
    [
        ("1,20.01", "2,20.01", "opening_bid"),
        ("20.01", "20", "closing_price"),
        (",7", ",5", "duration_days"),
        ("Palm", "Xbox", "item"),
    ],
)
def test_a_row_that_differs_from_the_first_is_noted_and_still_counts(
    tmp_path: Path, field: str, value: str, column: str
) -> None:
    recording = read_recording(write(tmp_path, HEADER, GOOD, GOOD.replace(field, value, 1)))
    (auction,) = recording.auctions
    assert (auction.opening_bid, auction.closing_price, auction.name, len(auction.bids)) == (100, 2001, "Palm Pilot", 2)
    (note,) = recording.notes
    assert f"line 3, column {column}" in note


def test_a_missing_column_is_named(tmp_path: Path) -> None:
    with pytest.raises(CsvError, match="line 1, column max_bid"):
        read_recording(write(tmp_path, HEADER.replace("max_bid", "bid"), GOOD))


def test_too_few_fields_name_the_line(tmp_path: Path) -> None:
    with pytest.raises(CsvError, match="line 3: 3 fields"):
        read_recording(write(tmp_path, HEADER, GOOD, "100,1,2"))


@pytest.mark.parametrize("content", [b"", HEADER.encode(), b"\n\n"])
def test_a_file_without_bids_is_an_error(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bids.csv"
    path.write_bytes(content)
    with pytest.raises(CsvError, match="line 1"):
        read_recording(path)


@pytest.mark.parametrize("garbage", [b"\xff\xfe", b"\x00", b'"'])
def test_a_file_that_is_no_csv_is_an_error_with_its_line(tmp_path: Path, garbage: bytes) -> None:
    path = tmp_path / "bids.csv"
    path.write_bytes(f"{HEADER}\n{GOOD}\n".encode() + garbage + b"100,1\n")
    with pytest.raises(CsvError, match="line 3"):
        read_recording(path)
