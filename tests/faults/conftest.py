"""A table of what was seen, after the run, and the run that waits for minutes beside the others."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults import report
from tests.faults.beside import Beside
from tests.faults.outage import five_minutes_without_postgresql

_BEGAN_S = time.monotonic()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What runs beside the other tests is waited for after them."""
    items.sort(key=_waits_for_the_long_outage)


def _waits_for_the_long_outage(item: pytest.Item) -> bool:
    return "long_outage" in getattr(item, "fixturenames", ())


@pytest.fixture(scope="session", autouse=True)
def _long_outage(request: pytest.FixtureRequest, clean_machine: None) -> Iterator[Beside | None]:
    """Begins with the first fault test of a session that asks for it at all."""
    if not any(map(_waits_for_the_long_outage, request.session.items)):
        yield None
        return
    beside = Beside(five_minutes_without_postgresql)
    beside.start()
    yield beside
    beside.stop()


@pytest.fixture
def long_outage(_long_outage: Beside | None) -> Beside:
    """PostgreSQL is away for five minutes, since the first test of the session."""
    assert _long_outage is not None
    return _long_outage


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """One line per fault run that ended well: with its seed it can be repeated."""
    if not report.REPORTS and not report.DETAILS:
        return
    terminalreporter.section("faults")
    for line in [*report.lines(report.REPORTS), *report.DETAILS]:
        terminalreporter.write_line(line)
    if path := os.environ.get("FAULTS_REPORT"):
        passed, failed = (len(terminalreporter.stats.get(outcome, ())) for outcome in ("passed", "failed"))
        took_s = time.monotonic() - _BEGAN_S
        written = report.write(Path(path), report.REPORTS, passed=passed, failed=failed, took_s=took_s)
        terminalreporter.write_line("written to " + " and ".join(map(str, written)))
