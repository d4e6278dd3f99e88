"""Names of runs."""

from __future__ import annotations

from datetime import UTC, datetime


def run_tag() -> str:
    """A name for this run that no earlier run had: the second in UTC, and the microsecond."""
    return datetime.now(UTC).strftime("%Y%m%d-%H%M%S-%f")
