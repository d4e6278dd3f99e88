"""Bids as rows of a binary COPY."""

from __future__ import annotations

import struct
from datetime import UTC, datetime, timedelta

import msgspec
import pytest

from archival_worker.store.columns import bid_columns
from archival_worker.store.copy_rows import COPY_COLUMNS, copy_data, copy_rows
from shared.messages import AnyEvent, BidAccepted
from tests.unit.archival_worker.events import bid, closed

_INTEGERS = {"epoch": ">i", "seq": ">q", "amount": ">q", "previous_bid": ">q"}


def placed(*events: AnyEvent) -> list[BidAccepted]:
    return [event for event in events if isinstance(event, BidAccepted)]


def read(data: bytes) -> list[dict[str, object]]:
    """The rows of a COPY, by column, as PostgreSQL's manual has the format."""
    head = b"PGCOPY\n\xff\r\n\0" + struct.pack(">ii", 0, 0)
    assert data.startswith(head)
    rest = data[len(head) :]
    rows: list[dict[str, object]] = []
    while True:
        (count,) = struct.unpack_from(">h", rest)
        rest = rest[2:]
        if count == -1:
            assert rest == b""
            return rows
        assert count == len(COPY_COLUMNS)
        row: dict[str, object] = {}
        for column in COPY_COLUMNS:
            (length,) = struct.unpack_from(">i", rest)
            value, rest = rest[4 : 4 + max(0, length)], rest[4 + max(0, length) :]
            if length == -1:
                row[column] = None
            elif column == "placed_at":
                (since_2000_us,) = struct.unpack(">q", value)
                row[column] = datetime(2000, 1, 1, tzinfo=UTC) + timedelta(microseconds=since_2000_us)
            elif column in _INTEGERS:
                (row[column],) = struct.unpack(_INTEGERS[column], value)
            else:
                row[column] = value.decode()
        rows.append(row)


def rows_of(*events: AnyEvent) -> bytes:
    rows = copy_rows(events[0].item_id, events)
    assert rows is not None
    return rows


def test_a_row_has_what_the_columns_of_an_insert_have() -> None:
    bids = placed(
        bid("a", 1),
        bid("a", 2, user_id="bob", leader="ada"),
        bid("a", 3, user_id="“é\U0001f570”"),
        bid("a", 4, leader="“é\U0001f570”"),
        bid("a", 2, epoch=2),
    )
    names = ("item_id", "epoch", "seq", "bid_id", "user_id", "amount", "previous_bid", "kind", "leader_id")
    expected = [dict(zip(names, row, strict=True)) for row in zip(*bid_columns(bids)[:9], strict=True)]
    found = read(copy_data([rows_of(bids[0]), rows_of(*bids[1:])]))
    assert [{name: row[name] for name in names} for row in found] == expected
    assert {*names, "placed_at"} == {*COPY_COLUMNS}


@pytest.mark.parametrize("kind", ["bid", "proxy", "buy_now"])
@pytest.mark.parametrize("leader", [None, "ada", "bob"])
def test_every_kind_has_a_row_whoever_leads(kind: str, leader: str | None) -> None:
    (event,) = placed(bid("a", 1))
    event = msgspec.structs.replace(event, kind=kind, user_id="ada", highest_bidder_id=leader)
    (row,) = read(copy_data([rows_of(event)]))
    assert (row["kind"], row["user_id"], row["leader_id"]) == (kind, "ada", "bob" if leader == "bob" else None)


def test_an_instant_is_exact_to_the_microsecond() -> None:
    first, second = read(copy_data([rows_of(bid("a", 1), bid("a", 2))]))
    at, later = first["placed_at"], second["placed_at"]
    assert isinstance(at, datetime)
    assert isinstance(later, datetime)
    assert at == datetime(2025, 6, 15, 15, 6, 40, 123_457, tzinfo=UTC)
    assert later - at == timedelta(microseconds=1)


@pytest.mark.parametrize("year", [1, 9999])
def test_an_instant_of_pythons_calendar_is_a_row(year: int) -> None:
    at = datetime(year, 1, 1, tzinfo=UTC)
    at_us = (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)
    (row,) = read(copy_data([rows_of(msgspec.structs.replace(bid("a", 1), ts_us=at_us))]))
    assert row["placed_at"] == at


@pytest.mark.parametrize(
    "odd",
    [
        *({"ts_us": at_us} for at_us in (-62_135_596_800_000_001, 253_402_300_800_000_000, 2**62, 2**80, -(2**80))),
        # 2000 and the largest number of a timestamptz, which is "infinity" there.
        {"ts_us": 2**63 - 1 + 946_684_800_000_000},
        *({name: value} for name in ("seq", "amount", "previous_bid") for value in (2**63, -(2**63) - 1)),
        {"epoch": 2**31},
        *({name: "\ud800"} for name in ("bid_id", "user_id", "highest_bidder_id")),
    ],
    ids=str,
)
def test_what_no_row_can_have_is_no_row(odd: dict[str, object]) -> None:
    assert copy_rows("a", [bid("a", 1), msgspec.structs.replace(bid("a", 2), **odd)]) is None


def test_only_bids_are_rows() -> None:
    assert copy_rows("a", [closed("a", 2)]) == b""
    assert copy_rows("a", []) == b""
    assert rows_of(bid("a", 1), closed("a", 2)) == rows_of(bid("a", 1))
    assert read(copy_data([])) == []
