"""Counts what bidders lead with: one look at all items at a time serves all accounts that wait for it.

No key says who leads what, since every bid would pay for that. So an account is counted by looking at every item. Were
each to look for itself, many accounts that are opened at once, or many bids of one bidder, would each read all of
Redis.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection
from dataclasses import dataclass, field

Bidder = tuple[str, str]
"""A user id and a currency."""


@dataclass(slots=True)
class _Look:
    bidders: set[Bidder] = field(default_factory=set)
    is_done: bool = False
    error: Exception | None = None


class Counts:
    """``look`` counts what these bidders lead with."""

    def __init__(self, look: Callable[[Collection[Bidder]], Awaitable[object]]) -> None:
        self._look = look
        self._next = _Look()
        self._turn = asyncio.Lock()

    async def charge(self, user_id: str, currency: str) -> None:
        """Return when a look that began after this call has counted what the bidder leads with. Raises what it
        raises."""
        mine = self._next
        mine.bidders.add((user_id, currency))
        async with self._turn:
            # If this is done, another caller has looked for all who waited. A caller that was cancelled leaves the look
            # to the next one.
            if not mine.is_done:
                if self._next is mine:
                    self._next = _Look()
                try:
                    await self._look(mine.bidders)
                except Exception as error:
                    mine.error = error
                mine.is_done = True
        if mine.error is not None:
            raise mine.error
