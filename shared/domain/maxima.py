"""Derives the hidden part of an item's state from visible rows: the leader's maximum, and the highest maximum of the
others.

:func:`shared.domain.bidding.place_bid` is the rule. This is the same rule for plain bids, whose rows show everything:
``tests/unit/shared/domain/test_maxima.py`` drives random histories through both.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from shared.domain.bidding import Kind


@dataclass(frozen=True, slots=True)
class Maxima:
    """``leader`` '' means nobody; amounts in minor units."""

    leader: str = ""
    leader_max: int = 0
    runner_up: int = 0

    def after(self, user_id: str, amount: int, kind: Kind, *, leads: bool) -> Maxima:
        """The maxima after the row of an accepted bid without a maximum, or of an automatic bid.

        Args:
            leads: whether its bidder led right after it.
        """
        if kind == "proxy":
            return self  # the maximum behind it is known already
        if not leads:
            return replace(self, runner_up=amount)
        if user_id != self.leader:
            return Maxima(user_id, amount, self.leader_max)
        # A buyer pays the buy-now price, whatever their maximum was.
        limit = amount if kind == "buy_now" else max(self.leader_max, amount)
        return replace(self, leader_max=limit)
