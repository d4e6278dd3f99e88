"""Who may bid, as far as sellers and operators have ruled on it. Pure.

A ruling is about later bids alone: what a bidder has placed stands, and a maximum goes on to bid. A void strikes it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Rulings:
    """All that was ruled on one bidder, as far as it matters on one item.

    Attributes:
        needs_approval: the item asks for approval, or the house does on every item.
        approved: for this item, or for all.
        blocked: on this item, on all of its seller, or on all.
        limit: the most that one bid of the bidder on this item may come to, in minor units; None for any amount.
        credit: the most with which the bidder may lead this item, in minor units, given the spending limit and what
            else the bidder leads with; None for any amount.
    """

    needs_approval: bool = False
    approved: bool = False
    blocked: bool = False
    limit: int | None = None
    credit: int | None = None

    @property
    def refusal(self) -> str | None:
        """The code with which every bid of the bidder is refused, or None. A block is stronger than an approval."""
        if self.blocked:
            return "BLOCKED"
        return "NOT_APPROVED" if self.needs_approval and not self.approved else None

    def allows(self, most: int) -> bool:
        """Whether a bid that may come to this much, in minor units, is within the limit."""
        return self.limit is None or most <= self.limit


NO_RULINGS: Final = Rulings()
"""Nothing was ruled, and nothing has to be."""

PASSING: Final = frozenset({"BLOCKED", "NOT_APPROVED", "LIMIT_EXCEEDED"})
"""Refusals that depend on rulings. They are not kept under a bid's key: the same bid may be sent again after another
ruling."""
