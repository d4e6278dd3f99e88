"""The clock of leases and of what is kept: it goes on while the process is stopped and while the machine sleeps."""

from __future__ import annotations

import time
from typing import Final

# Linux counts sleep in a clock of its own. On macOS this one does, and the one of `time.monotonic` does not.
_CLOCK: Final[int] = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)


def now_s() -> float:
    """Seconds; only differences mean something."""
    return time.clock_gettime(_CLOCK)
