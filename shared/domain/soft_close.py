"""Soft close: a late bid moves the end, so that the fastest network does not win the auction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from shared.domain.errors import TermsInvalid


@dataclass(frozen=True, slots=True)
class SoftClose:
    """The rule of one item; times in microseconds.

    Attributes:
        trigger_us: an accepted bid moves the end if less than this is left.
        extend_us: how far, counted from the bid (``from_bid``) or from the current end (``from_end``).
        max_count: the most extensions; 0 means no limit.
        hard_end_us: the agreed instant past which the end never moves; None means no limit.
    """

    trigger_us: int
    extend_us: int
    mode: Literal["from_bid", "from_end"] = "from_bid"
    max_count: int = 0
    hard_end_us: int | None = None

    def __post_init__(self) -> None:
        if self.trigger_us <= 0 or self.extend_us <= 0:
            raise TermsInvalid("soft_close", "trigger_s and extend_s must be more than 0")
        if self.max_count < 0:
            raise TermsInvalid("soft_close", "max_count must not be negative; 0 or null means without limit")

    def extended_end(self, end_us: int, now_us: int, extensions: int, hard_end_us: int | None) -> int | None:
        """The new end after a price-changing bid at ``now_us``, or None if the end stays.

        The end never moves to an earlier instant, nor past ``hard_end_us`` (the agreed one, shifted by pauses).
        """
        if end_us - now_us >= self.trigger_us:
            return None
        if self.max_count and extensions >= self.max_count:
            return None
        new_end = (now_us if self.mode == "from_bid" else end_us) + self.extend_us
        if hard_end_us is not None:
            new_end = min(new_end, hard_end_us)
        return new_end if new_end > end_us else None
