"""The service's clock as a client of the live feed knows it, for correct countdowns. Pure."""

from __future__ import annotations

from collections import deque
from datetime import datetime
from typing import Final

from shared.timefmt import from_datetime

CLOCK_SAMPLES: Final = 8


class ServerClock:
    """The service's time, from its messages and a monotonic clock; a wrong local clock does not matter.

    The transit of a message makes the service's clock look late, never early. So of the latest samples the one that is
    farthest ahead is the best.
    """

    def __init__(self) -> None:
        self._ahead_us: deque[int] = deque(maxlen=CLOCK_SAMPLES)

    def note(self, server_us: int, now_s: float) -> None:
        """The time ``server_us`` of the service (microseconds since 1970) arrived at ``now_s``."""
        self._ahead_us.append(server_us - round(now_s * 1_000_000))

    def reset(self) -> None:
        """Forget the samples of a former connection, which may have been to another service."""
        self._ahead_us.clear()

    def now_us(self, now_s: float) -> int | None:
        """Microseconds since 1970 by the service's clock; None before its first message."""
        return max(self._ahead_us) + round(now_s * 1_000_000) if self._ahead_us else None


def instant_us(text: object) -> int | None:
    """Microseconds since 1970 of an RFC 3339 text, None for anything else."""
    try:
        return from_datetime(datetime.fromisoformat(text)) if isinstance(text, str) else None
    except (ValueError, OverflowError):
        return None
