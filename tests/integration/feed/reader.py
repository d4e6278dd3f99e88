"""A client of the live feed that reads in the background, while a test acts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from shared.feed_client.client import FeedClient
from shared.feed_client.updates import ConnectionChanged, ConnectionState, ItemUpdate, Refused, Update
from tests.waiting import eventually

PATIENCE_S = 60.0


class Reader:
    """Reads a feed in the background, and checks the guarantees at every update."""

    def __init__(self, feed: FeedClient) -> None:
        self.feed = feed
        self.updates: list[Update] = []
        self._task = asyncio.create_task(self._read())

    @classmethod
    @asynccontextmanager
    async def of(cls, feed: FeedClient) -> AsyncIterator[Reader]:
        async with feed:
            reader = cls(feed)
            try:
                yield reader
            finally:
                reader._task.cancel()
                await asyncio.wait([reader._task])
                if not reader._task.cancelled():
                    reader._task.result()

    async def _read(self) -> None:
        async for update in self.feed:
            if isinstance(update, ItemUpdate):
                known = [each.version for each in self.of_item(update.item_id)]
                assert not known or update.version > known[-1]
            self.updates.append(update)

    def of_item(self, item_id: str) -> list[ItemUpdate]:
        return [each for each in self.updates if isinstance(each, ItemUpdate) and each.item_id == item_id]

    @property
    def refusals(self) -> list[str]:
        return [each.code for each in self.updates if isinstance(each, Refused)]

    @property
    def states(self) -> list[ConnectionState]:
        return [each.state for each in self.updates if isinstance(each, ConnectionChanged)]

    async def until(self, holds: Callable[[], bool]) -> None:
        """Wait until this is true; what ended the reading is raised."""

        def held() -> bool:
            is_held = holds()
            if not is_held and self._task.done():
                self._task.result()
            return is_held

        await eventually(held, seconds=PATIENCE_S)

    async def until_seq(self, item_id: str, seq: int) -> None:
        await self.until(lambda: bool(seen := self.of_item(item_id)) and seen[-1].version[1] >= seq)

    def seqs(self, item_id: str) -> list[int]:
        return [each.version[1] for each in self.of_item(item_id)]
