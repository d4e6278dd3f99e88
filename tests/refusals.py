"""Finds what servers refused the services of a stack for want of a permission. There must be no such refusal.

A service goes on without what it was refused, and says so in its log alone. So every stack of a test is looked at when
it ends, and `shared/permissions` is where the missing permission belongs.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

_SIGNS: Final = re.compile(
    r"(Publish|Subscription) Violation|permission denied for|NOPERM|NoPermissionError|no permissions to", re.IGNORECASE
)
_LINES_MAX: Final = 20


def refusals(data_dir: Path) -> list[str]:
    """The lines of the stack's logs that tell of such a refusal, the first of each log."""
    found: list[str] = []
    for log in sorted((data_dir / "logs").glob("*.log")):
        with log.open(errors="replace") as lines:
            told = [line.strip() for line in lines if _SIGNS.search(line)]
        found += [f"{log.name}: {line}" for line in told[:_LINES_MAX]]
    return found
