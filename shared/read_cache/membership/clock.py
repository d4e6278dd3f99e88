"""The clock of leases: it goes on while the process is stopped and, where the system tells it, while the machine
sleeps."""

from __future__ import annotations

import time
from typing import Final

_BOOT_CLOCK: Final[int | None] = getattr(time, "CLOCK_BOOTTIME", None)


def now_s() -> float:
    """Seconds; only differences mean something."""
    return time.monotonic() if _BOOT_CLOCK is None else time.clock_gettime(_BOOT_CLOCK)
