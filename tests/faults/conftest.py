"""A table of what was seen, after the run, and the run that waits for minutes beside the others."""

from __future__ import annotations

import os
import time
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from tests.faults.rig import report as table
from tests.faults.rig.beside import Beside
from tests.faults.rig.outage import five_minutes_without_postgresql

_BEGAN_S = time.monotonic()
_REPORTS: list[table.Report] = []
_DETAILS: list[str] = []


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The long outage goes on beside the other tests: in one process they come first, in several it does."""
    items.sort(key=_waits_for_the_long_outage, reverse=_is_one_of_several(config))


def _waits_for_the_long_outage(item: pytest.Item) -> bool:
    return "long_outage" in getattr(item, "fixturenames", ())


def _is_one_of_several(config: pytest.Config) -> bool:
    """Is this a worker of pytest-xdist, each of which collects all tests and runs some?"""
    return hasattr(config, "workerinput")


@pytest.fixture(scope="session", autouse=True)
def _long_outage(request: pytest.FixtureRequest, clean_machine: None) -> Iterator[Beside]:
    """In one process the outage begins with the first fault test, if any test of the session needs it."""
    beside = Beside(five_minutes_without_postgresql)
    if any(map(_waits_for_the_long_outage, request.session.items)) and not _is_one_of_several(request.config):
        beside.start()
    yield beside
    beside.stop()


@pytest.fixture
def long_outage(_long_outage: Beside) -> Beside:
    """PostgreSQL is away for five minutes, since the first test of the session or from now on."""
    _long_outage.start()
    return _long_outage


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(call: pytest.CallInfo[None]) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What was seen goes along with what became of a test: another process may write the table."""
    told = yield
    if call.when == "teardown":
        told.user_properties.append((table.PROPERTY, table.take()))
    return told


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Take in what was seen: this is the process that writes the table."""
    for name, seen in report.user_properties:
        if name == table.PROPERTY and isinstance(seen, dict):
            reports, details = table.given(seen)
            _REPORTS.extend(reports)
            _DETAILS.extend(details)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """One line per fault run that ended well: with its seed it can be repeated."""
    if not _REPORTS and not _DETAILS:
        return
    terminalreporter.section("faults")
    for line in [*table.lines(_REPORTS), *_DETAILS]:
        terminalreporter.write_line(line)
    if path := os.environ.get("FAULTS_REPORT"):
        passed, failed = (len(terminalreporter.stats.get(outcome, ())) for outcome in ("passed", "failed"))
        took_s = time.monotonic() - _BEGAN_S
        written = table.write(Path(path), _REPORTS, passed=passed, failed=failed, took_s=took_s)
        terminalreporter.write_line("written to " + " and ".join(map(str, written)))
