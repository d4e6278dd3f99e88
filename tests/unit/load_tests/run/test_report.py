"""The report of a load run: what holds, what does not, and nothing secret."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from load_tests.generator.driver import Load
from load_tests.generator.ledger import Entry, ItemLedger, Latency, Ledger
from load_tests.generator.tally import Progress
from load_tests.proof.checks import Check, Verification
from load_tests.proof.resolve import Resolution
from load_tests.run.report import RunReport, as_json, progress_line, render, run_checks, write_json

LOAD = Load(users=10, run_s=5, item_ids=("lot-1",), tag="t")


def ledger(**changes: object) -> Ledger:
    books = ItemLedger(accepted=[Entry("b1", "ada", 100, 1)], refused={"TOO_LOW": 3}, looks=2)
    fields: dict[str, object] = {"seconds": 2.0, "failures": 0, "times": {10: 4}} | changes
    return Ledger({"lot-1": books}, **fields)  # type: ignore[arg-type]


def report(*checks: Check, books: Ledger | None = None) -> RunReport:
    books = books or ledger()
    verification = Verification("lot-1", checks or (Check("counts_equal", True, "clients 1"),), {"accepted": 1})
    return RunReport(
        load=LOAD,
        gateway_url="http://gateway.test",
        started_at="2030-01-01T00:00:00+00:00",
        ledger=books,
        resolutions=[Resolution()],
        verifications=[verification],
        checks=run_checks(books, unknown_allowed=False),
    )


def test_a_proved_run_says_so_with_its_numbers() -> None:
    text = render(report())
    assert report().ok
    assert "4 with a verdict, 2/s" in text
    assert "(TOO_LOW 3)" in text
    assert "PROVED:" in text
    assert "NOT PROVED" not in text
    assert "FAILED" not in text


@pytest.mark.parametrize(("think_ms", "said"), [(0, "its answer before"), (1500, "its answer and 1,500 ms before")])
def test_it_says_that_a_slow_platform_is_asked_less(think_ms: int, said: str) -> None:
    finished = replace(report(), load=replace(report().load, think_ms=think_ms))
    assert f"closed loop     each user waits for {said} the next bid" in render(finished)
    assert as_json(finished)["load"]["loop"] == "closed"


def test_a_check_that_does_not_hold_is_named_in_the_last_line() -> None:
    broken = report(Check("counts_equal", False, "clients 2, PostgreSQL 1"), Check("rows_once", True, "0"))
    text = render(broken)
    assert not broken.ok
    assert "FAILED  counts_equal" in text
    assert text.splitlines()[-1].startswith("NOT PROVED: counts_equal")


def test_of_many_items_only_unsound_ones_are_shown() -> None:
    good = Verification("lot-good", (Check("counts_equal", True, "fine"),))
    bad = Verification("lot-bad", (Check("counts_equal", False, "broken"), Check("rows_once", True, "fine")))
    text = render(replace(report(), verifications=[good, bad], resolutions=[Resolution(), Resolution()]))
    assert "lot-bad" in text
    assert "lot-good" not in text
    assert "1 of 2 items: all 2 checks hold" in text


def test_a_run_without_an_accepted_bid_proves_nothing() -> None:
    empty = Ledger({"lot-1": ItemLedger(refused={"TOO_LOW": 5})})
    assert [check.name for check in run_checks(empty, unknown_allowed=False) if not check.ok] == ["bids_were_accepted"]


def test_without_a_verified_item_nothing_is_proved() -> None:
    assert not replace(report(), verifications=[], resolutions=[]).ok


def test_failures_count_and_missing_answers_only_where_they_are_not_allowed() -> None:
    unanswered = ledger(failures=2)
    assert not run_checks(unanswered, unknown_allowed=False)[0].ok
    assert run_checks(unanswered, unknown_allowed=True)[0].ok
    refused_by_error = ledger(failures=2)
    refused_by_error.items["lot-1"].failed = {"HTTP 503 OVERLOADED": 1}
    assert not run_checks(refused_by_error, unknown_allowed=True)[0].ok


def test_the_json_report_round_trips_and_names_no_store(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "report.json"
    write_json(path, as_json(report()))
    data = msgspec.json.decode(path.read_bytes())
    assert data["ok"] is True
    assert data["accepted"] == 1
    assert data["items"][0]["checks"][0]["name"] == "counts_equal"
    assert "redis" not in path.read_text()


def test_a_line_of_progress() -> None:
    line = Progress(12.4, 100, 1234.5, 20_000, 3_000, 0, 1, Latency(10, 20, 30, 40))
    text = progress_line(line)
    assert "100 users" in text
    assert "accepted 20,000" in text
    assert "p50 10  p95 20  p99 30 ms" in text
    assert "failures 1" in text
    assert "unknown" not in text
    assert "unknown 7" in progress_line(msgspec.structs.replace(line, unknown=7))
