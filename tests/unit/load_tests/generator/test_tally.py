"""The books: every bid ends in exactly one column, and one that was cut off in flight is unknown."""

from __future__ import annotations

from pathlib import Path

import pytest

from load_tests.generator.answers import BidAnswer, Fate
from load_tests.generator.ledger import Entry, Latency, Ledger, LedgerError, merge_ledgers, read_ledger, write_ledger
from load_tests.generator.tally import Tally


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
        tally.answered(f"bid-{number}", answer, 1.0 * number)
    tally.sent("lot-2", entry(6))
    tally.looked("lot-2")
    tally.looked("lot-2", "HTTP 500")
    return tally


def close(tally: Tally) -> Ledger:
    return tally.close()


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
    tally.answered("bid-1", BidAnswer(Fate.UNKNOWN, "HTTP 201", complaint="HTTP 201 with an unreadable body"), 1.0)
    books = close(tally).items["lot-1"]
    assert books.unknown == [entry(1)]
    assert books.failed == {"HTTP 201 with an unreadable body": 1}


def test_a_bid_cannot_be_answered_twice() -> None:
    tally = full_tally()
    with pytest.raises(KeyError):
        tally.answered("bid-1", BidAnswer(Fate.REFUSED, "TOO_LOW"), 1.0)


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


def test_only_the_time_under_full_load_is_in_the_window() -> None:
    now = [10.0]
    tally = Tally(["lot-1"], clock=lambda: now[0])
    for number, (at_s, step) in enumerate(
        [(11.0, None), (12.0, tally.open_window), (13.0, None), (14.0, tally.close_window), (15.0, None)], 1
    ):
        now[0] = at_s
        if step is not None:
            step()
        tally.sent("lot-1", entry(number))
        tally.answered(f"bid-{number}", BidAnswer(Fate.ACCEPTED, "", number, 100, 101), 10.0 * number)
    ledger = tally.close()
    assert (ledger.window.bids, ledger.window.seconds, ledger.window.bids_per_s) == (2, 2.0, 1.0)
    assert ledger.window.latency == Latency(20.0, 30.0, 30.0, 30.0)
    assert (ledger.bids, ledger.seconds, ledger.latency.max_ms) == (5, 4.0, 50.0)


def test_the_books_of_several_processes_are_those_of_one() -> None:
    one, other = close(full_tally()), close(full_tally())
    both = merge_ledgers([one, other])
    assert (both.accepted, both.refused, both.unknown, both.failures) == (2, 4, 4, 6)
    assert both.items["lot-1"].refused == {"TOO_LOW": 4}
    assert both.items["lot-2"].looks == 4
    assert both.times == {bucket: 2 * count for bucket, count in one.times.items()}
    with pytest.raises(LedgerError, match="no process"):
        merge_ledgers([])
