"""Strikes bids, with credit for the bidder who leads then: a void lets nobody lead beyond their spending limit."""

from __future__ import annotations

from typing import Final, Protocol

from api_gateway.engine.bids.committer import FindCredit
from api_gateway.engine.bids.voids import Voids
from shared.crash_points import crash_point
from shared.domain.errors import LeadLacksCredit, Unavailable

_TRIES: Final = 6


class Strikes(Protocol):
    """The part of :class:`CoveredVoids` that an operation needs."""

    async def strike(self, item_id: str, bid_id: str, *, reason: str, by: str) -> int: ...


class CoveredVoids:
    """The credit is in the item's shard before the bid is struck, and taken in the step that strikes it. So a gateway
    that dies in between leaves credit that nobody uses, and never a lead without credit."""

    def __init__(self, voids: Voids, find_credit: FindCredit) -> None:
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
        tries = 0

        async def cover(lacking: LeadLacksCredit) -> bool:
            # The script is asked again at once, with what was counted. If a long history were counted anew in between,
            # a bidder who bids elsewhere every second, even without success, would take the credit each time.
            nonlocal tries
            tries += 1
            if tries > _TRIES:
                raise Unavailable("others took the credit that this void needs; try again")
            if not await self._find_credit(item_id, lacking.user_id, lacking.currency, lacking.missing):
                return False
            crash_point("voids.secured")
            return True

        return await self._voids.strike(item_id, bid_id, reason=reason, by=by, cover=cover)
