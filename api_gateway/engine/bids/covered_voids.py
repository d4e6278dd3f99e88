"""Strikes bids, with credit for whoever leads then: a void never lets anybody lead beyond their spending limit."""

from __future__ import annotations

from typing import Final, Protocol

from api_gateway.engine.bids.committer import FindCredit
from shared.crash_points import crash_point
from shared.domain.errors import LeadLacksCredit, Unavailable

_TRIES: Final = 6


class Strikes(Protocol):
    """:class:`api_gateway.engine.bids.voids.Voids`."""

    async def strike(self, item_id: str, bid_id: str, *, reason: str, by: str) -> int: ...


class CoveredVoids:
    """The credit is in the item's shard before the bid is struck, and taken in the step that strikes it. So whoever
    dies in between leaves credit that nobody uses, and never a lead without credit."""

    def __init__(self, voids: Strikes, find_credit: FindCredit) -> None:
        """``find_credit``: awaited with ``(item, bidder, currency, minor units)`` where the shard lacks so much;
        whether it is worth asking the shard again."""
        self._voids = voids
        self._find_credit = find_credit

    async def strike(self, item_id: str, bid_id: str, *, reason: str, by: str) -> int:
        """Strike a bid. Returns the outbox entry.

        Raises:
            LeadLacksCredit: nothing was changed; whoever would lead without the bid may not, by their spending limit.
            Unavailable: nothing was changed; that cannot be told now, or others took the credit again and again.
            BiddingError, RedisError, OSError: as :meth:`Voids.strike` raises them.
        """
        for _ in range(_TRIES):
            try:
                return await self._voids.strike(item_id, bid_id, reason=reason, by=by)
            except LeadLacksCredit as lacking:
                if not await self._find_credit(item_id, lacking.user_id, lacking.currency, lacking.missing):
                    raise
                crash_point("voids.secured")
        raise Unavailable("others took the credit that this void needs; try again")
