"""How many second attempts are allowed: a share of the first ones, so that an outage is not made worse by repeating."""

from __future__ import annotations

from typing import Final

SHARE: Final = 0.2
MOST: Final = 100.0


class RetryBudget:
    """Each attempt puts a part of a retry into it; each retry takes a whole one. It begins full, and holds ``MOST``."""

    def __init__(self, *, share: float = SHARE, most: float = MOST) -> None:
        self._share = share
        self._most = most
        self._left = most

    def attempted(self) -> None:
        """A first attempt was made."""
        if self._left < self._most:
            self._left = min(self._most, self._left + self._share)

    def take(self) -> bool:
        """Whether a retry is allowed; an allowed one is counted."""
        if self._left < 1:
            return False
        self._left -= 1
        return True
