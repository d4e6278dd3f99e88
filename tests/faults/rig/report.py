"""What the runs of a test session have shown: a table for people, and the same as JSON and Markdown where a file is
asked for (``FAULTS_REPORT=<path without ending>``)."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

NUMBERS = ("faults", "answers", "acknowledged", "lost", "doubled", "hidden")


@dataclasses.dataclass(frozen=True, slots=True)
class Report:
    """What a run that ended well has shown.

    ``is_proven`` is False for a run that was meant to lose bids; such runs are left out of the sums.
    """

    test: str
    is_proven: bool
    seed: int
    faults: int
    answers: int
    acknowledged: int
    lost: int
    doubled: int
    hidden: int = 0


REPORTS: list[Report] = []
DETAILS: list[str] = []
"""Lines about single runs, for the terminal alone."""
PROPERTY = "fault runs"
"""The property of a test's report that has what :func:`take` gave."""


def take() -> dict[str, Any]:
    """What was seen since the last call, as plain values that can be sent to another process."""
    # One by one: the long outage may add to them at any moment, from a thread of its own.
    return {
        "reports": [dataclasses.asdict(REPORTS.pop(0)) for _ in range(len(REPORTS))],
        "details": [DETAILS.pop(0) for _ in range(len(DETAILS))],
    }


def given(seen: Mapping[str, Any]) -> tuple[list[Report], list[str]]:
    """What :func:`take` took, in the process that it was sent to."""
    return [Report(**each) for each in seen["reports"]], list(seen["details"])


def current_test() -> str:
    """The name of the test that runs now, with its parameters, and without the group that pytest-xdist adds."""
    name = os.environ.get("PYTEST_CURRENT_TEST", "").rpartition("::")[2].rpartition(" (")[0]
    return name.partition("@")[0]


def sums(reports: Sequence[Report]) -> dict[str, int]:
    """Each number over all runs that must not lose anything."""
    return {name: sum(getattr(each, name) for each in reports if each.is_proven) for name in NUMBERS}


def lines(reports: Sequence[Report]) -> Iterator[str]:
    """The table for the terminal."""
    columns = ("seed", *NUMBERS)
    yield "  ".join(f"{name:>12}" for name in columns) + "  test"
    for report in reports:
        yield "  ".join(f"{getattr(report, name):12,}" for name in columns) + f"  {report.test}"
    total = sums(reports)
    without = "" if all(each.is_proven for each in reports) else " (without the runs that are meant to lose bids)"
    yield (
        f"{total['faults']:,} faults, {total['acknowledged']:,} bids acknowledged, {total['lost']:,} lost, "
        f"{total['doubled']:,} doubled, {total['hidden']:,} hidden{without}"
    )


def markdown(reports: Sequence[Report]) -> str:
    """The same as a table of Markdown."""
    head = ["Test", "Seed", *(name.capitalize() for name in NUMBERS)]
    total = sums(reports)
    rows = [
        *([f"`{each.test}`", str(each.seed), *_numbers(each)] for each in reports if each.is_proven),
        ["*all of them*", "", *(f"{total[name]:,}" for name in NUMBERS)],
        *(
            [f"`{each.test}`, meant to lose bids", str(each.seed), *_numbers(each)]
            for each in reports
            if not each.is_proven
        ),
    ]
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows]) + "\n"


def _numbers(report: Report) -> list[str]:
    return [f"{getattr(report, name):,}" for name in NUMBERS]


def write(path: Path, reports: Sequence[Report], *, passed: int, failed: int, took_s: float) -> list[Path]:
    """Write ``<path>.json`` and ``<path>.md``; folders are made. Returns both."""
    path.parent.mkdir(parents=True, exist_ok=True)
    content = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "took_s": round(took_s, 1),
        "passed": passed,
        "failed": failed,
        "sums": sums(reports),
        "runs": [dataclasses.asdict(each) for each in reports],
    }
    written = [path.with_name(f"{path.name}{ending}") for ending in (".json", ".md")]
    written[0].write_text(json.dumps(content, indent=2) + "\n")
    written[1].write_text(markdown(reports))
    return written
