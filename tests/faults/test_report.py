"""The table of what was seen: what goes into the sums, and what into the files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.faults.rig import report
from tests.faults.rig.report import Report, current_test, given, lines, markdown, sums, take, write

RUNS = [
    Report("test_a", is_proven=True, seed=1, faults=2, answers=300, acknowledged=1_100, lost=0, doubled=0),
    Report("test_b", is_proven=True, seed=2, faults=1, answers=50, acknowledged=20, lost=0, doubled=0),
    Report("test_unsafe", is_proven=False, seed=3, faults=1, answers=90, acknowledged=40, lost=7, doubled=0),
]


def test_runs_that_are_meant_to_lose_bids_are_not_summed() -> None:
    assert sums(RUNS) == {"faults": 3, "answers": 350, "acknowledged": 1_120, "lost": 0, "doubled": 0, "hidden": 0}
    *_, last = lines(RUNS)
    assert last.startswith("3 faults, 1,120 bids acknowledged, 0 lost, 0 doubled, 0 hidden")
    assert "meant to lose bids" in last
    *_, last = lines(RUNS[:2])
    assert "meant to lose bids" not in last


def test_the_files_say_what_the_terminal_says(tmp_path: Path) -> None:
    files = write(tmp_path / "new" / "table", RUNS, passed=5, failed=1, took_s=12.34)
    assert [path.name for path in files] == ["table.json", "table.md"]
    content = json.loads(files[0].read_text())
    assert (content["passed"], content["failed"], content["took_s"]) == (5, 1, 12.3)
    assert content["sums"] == sums(RUNS)
    assert [run["test"] for run in content["runs"]] == ["test_a", "test_b", "test_unsafe"]
    table = files[1].read_text()
    assert table == markdown(RUNS)
    assert "| *all of them* |  | 3 | 350 | 1,120 | 0 | 0 | 0 |" in table
    assert table.index("*all of them*") < table.index("test_unsafe")
    assert len({line.count("|") for line in table.splitlines()}) == 1


def test_what_was_seen_is_sent_to_another_process_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(report, "REPORTS", list(RUNS))
    monkeypatch.setattr(report, "DETAILS", ["a line"])
    assert given(json.loads(json.dumps(take()))) == (RUNS, ["a line"])
    assert given(take()) == ([], [])


def test_a_test_has_the_same_name_in_one_process_and_in_several(monkeypatch: pytest.MonkeyPatch) -> None:
    for test in ("tests/faults/x.py::test_a[no-True] (call)", "tests/faults/x.py::test_a[no-True]@disks (call)"):
        monkeypatch.setenv("PYTEST_CURRENT_TEST", test)
        assert current_test() == "test_a[no-True]"
