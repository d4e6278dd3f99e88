"""The books: every bid ends in exactly one column, and one that was cut off in flight is unknown."""

from __future__ import annotations

from pathlib import Path

import pytest

from load_tests.answers import BidAnswer, Fate
from load_tests.tally import Entry, Latency, Ledger, LedgerError, Tally, read_ledger, write_ledger


def entry(number: int) -> Entry:
    return Entry(f"bid-{number}", "ada", 100 + number)


def full_tally() -> Tally:
    tally = Tally(["lot-1", "lot-2"])
    answers = [
        BidAnswer(Fate.ACCEPTED, "", 1, 101, 102, leading=True),
        BidAnswer(Fate.REFUSED, "TOO_LOW", None, 101, 102),
        BidAnswer(Fate.REFUSED, "TOO_LOW", None, 101, 102),
        BidAnswer(Fate.UNKNOWN, "NO_ANSWER"),
        BidAnswer(Fate.FAILED, "OVERLOADED", complaint="HTTP 503 OVERLOADED"),
    ]
    for number, answer in enumerate(answers, 1):
        tally.sent("lot-1", entry(number))
        tally.answered(f"bid-{number}", answer)
    tally.sent("lot-2", entry(6))
    tally.looked("lot-2")
    tally.looked("lot-2", "HTTP 500")
    return tally


def close(tally: Tally) -> Ledger:
    return tally.close(seconds=2.0, failures=3, latency=Latency(1, 2, 3, 4))


def test_every_bid_is_in_one_column() -> None:
    ledger = close(full_tally())
    books = ledger.items["lot-1"]
    assert books.accepted == [Entry("bid-1", "ada", 101, seq=1)]
    assert books.refused == {"TOO_LOW": 2}
    assert books.unknown == [entry(4)]
    assert books.failed == {"HTTP 503 OVERLOADED": 1}
    assert (ledger.accepted, ledger.refused, ledger.bids) == (1, 2, 3)


def test_a_bid_still_in_flight_at_the_end_is_unknown() -> None:
    ledger = close(full_tally())
    assert ledger.items["lot-2"].unknown == [entry(6)]
    assert ledger.unknown == 2


def test_looks_are_counted_and_their_failures_kept() -> None:
    books = close(full_tally()).items["lot-2"]
    assert books.looks == 2
    assert books.failed == {"GET item: HTTP 500": 1}


def test_an_unreadable_verdict_is_unknown_and_a_failure() -> None:
    tally = Tally(["lot-1"])
    tally.sent("lot-1", entry(1))
    tally.answered("bid-1", BidAnswer(Fate.UNKNOWN, "HTTP 201", complaint="HTTP 201 with an unreadable body"))
    books = close(tally).items["lot-1"]
    assert books.unknown == [entry(1)]
    assert books.failed == {"HTTP 201 with an unreadable body": 1}


def test_a_bid_cannot_be_answered_twice() -> None:
    tally = full_tally()
    with pytest.raises(KeyError):
        tally.answered("bid-1", BidAnswer(Fate.REFUSED, "TOO_LOW"))


def test_a_ledger_survives_the_file(tmp_path: Path) -> None:
    ledger = close(full_tally())
    path = tmp_path / "ledger.json"
    write_ledger(path, ledger)
    assert read_ledger(path) == ledger
    assert [file.name for file in tmp_path.iterdir()] == ["ledger.json"]


def test_a_missing_or_damaged_ledger_is_named(tmp_path: Path) -> None:
    path = tmp_path / "ledger.json"
    with pytest.raises(LedgerError, match="was not written"):
        read_ledger(path)
    path.write_bytes(b'{"items":')
    with pytest.raises(LedgerError, match="not a ledger"):
        read_ledger(path)
