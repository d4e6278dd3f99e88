"""Tells the other broadcasters how many viewers this one has, and tells its viewers how many there are in all."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Final, Protocol

from broadcast_service.core.audience import SUBJECT, Audience

SLICE: Final = 500
"""Items that are handled, in about a millisecond, before the event loop may do other work."""


class Bus(Protocol):
    """Core NATS, as :class:`~shared.streams.follower.Follower` offers it."""

    @property
    def is_up(self) -> bool: ...

    async def publish(self, subject: str, data: bytes) -> None:
        """At most once: while NATS is down, nothing is sent or kept for later."""


class Tell(Protocol):
    """Tells the viewers of an item; :meth:`~broadcast_service.transport.broadcaster.Broadcaster.tell_viewers`."""

    def __call__(self, item_id: str, viewers: int, *, exact: bool) -> None: ...


class AudienceSource:
    """``run`` works until it is cancelled; then it announces that this broadcaster has no viewers.

    Args:
        counts: the items that are followed here, each with its number of viewers.
    """

    def __init__(
        self,
        audience: Audience,
        counts: Callable[[], Iterable[tuple[str, int]]],
        tell: Tell,
        bus: Bus,
        *,
        clock: Callable[[], float],
    ) -> None:
        self._audience = audience
        self._counts = counts
        self._tell = tell
        self._bus = bus
        self._clock = clock

    async def run(self) -> None:
        """One round per period, until cancelled."""
        try:
            while True:
                await asyncio.sleep(self._audience.period_s)
                await self.round()
        finally:
            # Without this, viewers who move to another broadcaster would be counted twice for a while.
            await self._announce([])

    async def round(self) -> None:
        """Tell the others, then the viewers. Counts can be exact only while NATS is up."""
        await self._announce(self._counts())
        self._audience.forget_silent(self._clock())
        for number, (item_id, own) in enumerate(list(self._counts()), start=1):
            viewers, alone = self._audience.viewers(item_id, own, self._clock())
            self._tell(item_id, viewers, exact=alone and self._bus.is_up)
            if number % SLICE == 0:
                await asyncio.sleep(0)

    async def _announce(self, counts: Iterable[tuple[str, int]]) -> None:
        for data in self._audience.announce(counts):
            await self._bus.publish(SUBJECT, data)
