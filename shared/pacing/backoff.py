"""Pauses between attempts: doubling, bounded, and with jitter, so that workers do not come back all at once."""

from __future__ import annotations

import asyncio
import random
from typing import Final

_DOUBLINGS_MAX: Final = 32


class Backoff:
    """The pauses between attempts at one thing."""

    def __init__(self, *, first_s: float = 0.1, most_s: float = 5.0) -> None:
        self._first_s = first_s
        self._most_s = most_s
        self.failures = 0
        """Failures in a row."""

    def failed(self) -> float:
        """Count a failure; the seconds to pause, from half of to the whole of the doubled pause."""
        pause_s = min(self._most_s, self._first_s * (1 << min(self.failures, _DOUBLINGS_MAX)))
        self.failures += 1
        return pause_s * random.uniform(0.5, 1.0)

    def succeeded(self) -> None:
        """Begin with short pauses again."""
        self.failures = 0


async def set_within(event: asyncio.Event, seconds: float) -> bool:
    """Wait until the event is set, at most ``seconds``; returns whether it is. For pauses that a request to stop cuts
    short."""
    try:
        async with asyncio.timeout(seconds):
            await event.wait()
    except TimeoutError:
        return event.is_set()
    return True
