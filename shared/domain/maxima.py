"""The hidden part of an item's state, worked out from what was visible: who leads up to which maximum, and the highest
maximum of the others.

:func:`shared.domain.bidding.place_bid` is the rule. What is here says the same of plain bids, whose row tells all of
them: ``tests/unit/shared/domain/test_maxima.py`` drives random histories through both.
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
        """After the row of an accepted bid that came without a maximum, or of an automatic bid.

        Args:
            leads: whether its bidder led right after it.
        """
        if kind == "proxy":
            return self  # it goes up to a maximum that is known already
        if not leads:
            return replace(self, runner_up=amount)
        if user_id != self.leader:
            return Maxima(user_id, amount, self.leader_max)
        # Who buys now pays the price that was asked, whatever they would have gone up to.
        limit = amount if kind == "buy_now" else max(self.leader_max, amount)
        return replace(self, leader_max=limit)
