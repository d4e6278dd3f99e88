"""Log lines that clients can cause, at a bounded rate: a client that sends nonsense must not push all else out of the
log."""

from __future__ import annotations

import logging
from collections.abc import Callable
from time import monotonic
from typing import Final

LINES_MAX: Final = 10
PERIOD_S: Final = 60.0


class Seldom:
    """Writes at most ``lines_max`` lines in ``period_s`` seconds. The first one after that says how many were left out.

    One object for each kind of line: a flood of one kind must not hide another.
    """

    def __init__(
        self,
        logger: logging.Logger,
        *,
        lines_max: int = LINES_MAX,
        period_s: float = PERIOD_S,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        self._logger = logger
        self._lines_max = lines_max
        self._period_s = period_s
        self._clock = clock
        self._began_s = float("-inf")
        self._lines = 0
        self.left_out = 0
        """Lines that were not written since the last one that was."""

    def warning(self, text: str, *arguments: object) -> None:
        """As :meth:`logging.Logger.warning`, or nothing."""
        now_s = self._clock()
        if now_s - self._began_s >= self._period_s:
            self._began_s, self._lines = now_s, 0
        if self._lines >= self._lines_max:
            self.left_out += 1
            return
        self._lines += 1
        if self.left_out:
            text, arguments = f"{text} (and %d more like it were not logged)", (*arguments, self.left_out)
            self.left_out = 0
        self._logger.warning(text, *arguments)
