"""The service's clock as a client of the live feed knows it, for countdowns that are right. Pure."""

from __future__ import annotations

from collections import deque
from datetime import datetime
from typing import Final

from shared.timefmt import from_datetime

CLOCK_SAMPLES: Final = 8


class ServerClock:
    """The service's time, from what it says and a monotonic clock, so that a local clock that is wrong does no harm.

    A message that was on its way for long makes the service's clock look late, never early: of the latest few samples
    the one that is farthest ahead is the best.
    """

    def __init__(self) -> None:
        self._ahead_us: deque[int] = deque(maxlen=CLOCK_SAMPLES)

    def note(self, server_us: int, now_s: float) -> None:
        """The service said ``server_us`` (microseconds since 1970), and this arrived at ``now_s``."""
        self._ahead_us.append(server_us - round(now_s * 1_000_000))

    def reset(self) -> None:
        """What was learnt over another connection, perhaps of another service, counts no more."""
        self._ahead_us.clear()

    def now_us(self, now_s: float) -> int | None:
        """Microseconds since 1970 as the service counts them; None before it said anything."""
        return max(self._ahead_us) + round(now_s * 1_000_000) if self._ahead_us else None


def instant_us(text: object) -> int | None:
    """Microseconds since 1970 of an RFC 3339 text, None for anything else."""
    try:
        return from_datetime(datetime.fromisoformat(text)) if isinstance(text, str) else None
    except (ValueError, OverflowError):
        return None
