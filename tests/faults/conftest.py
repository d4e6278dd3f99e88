"""A table of what was seen, after the run."""

from __future__ import annotations

import pytest

from tests.faults.harness import REPORTS


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """One line per fault run that ended well: with its seed it can be repeated."""
    if not REPORTS:
        return
    terminalreporter.section("faults")
    columns = ("seed", "faults", "answers", "acknowledged", "lost", "doubled")
    terminalreporter.write_line("  ".join(f"{name:>12}" for name in columns) + "  test")
    for report in REPORTS:
        numbers = (getattr(report, name) for name in columns)
        terminalreporter.write_line("  ".join(f"{number:12,}" for number in numbers) + f"  {report.test}")
    proven = [report for report in REPORTS if report.is_proven]
    faults, acknowledged = sum(each.faults for each in proven), sum(each.acknowledged for each in proven)
    lost, doubled = sum(each.lost for each in proven), sum(each.doubled for each in proven)
    terminalreporter.write_line(
        f"{faults:,} faults, {acknowledged:,} bids acknowledged, {lost:,} lost, {doubled:,} doubled"
        + ("" if proven == REPORTS else " (without the runs that are meant to lose bids)")
    )
