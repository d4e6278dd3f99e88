"""The watch lists of those who are signed in, in PostgreSQL: the only thing there that gateways write.

Nothing is decided by a watch list, so it needs neither Redis nor an event. docs/decisions/0072 says why it is here.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, NamedTuple

from api_gateway.own.errors import WatchListFull, WatchListsFull
from shared.archive_reads.asking import Asking
from shared.domain.errors import Overloaded
from shared.names import shard_of
from shared.sql_files import read_statements

LIST_ITEMS_MAX: Final = 500
"""The most items on one list."""
PART_ITEMS_MAX: Final = 100_000
"""The most items on all lists of a part, which is a 64th of all people: 6,400,000 in all."""
OVER_KEPT_DAYS: Final = 30
"""How long an item that is over stays on a list after its last event; also how long an item stays that the archive does
not know."""
WRITES_AT_ONCE: Final = 2
"""The most connections of the pool that changes take; the others are for reads."""
CHANGES_MAX: Final = 200
"""The most changes that are under way, waiting ones among them."""
CHANGES_OF_ONE_MAX: Final = 8
"""The most of these that are of one person."""

SQL: Final = read_statements(Path(__file__).with_name("own.sql"))


class Watched(NamedTuple):
    """An item on a list, and since when (microseconds since 1970)."""

    item_id: str
    since_us: int


class WatchLists:
    """Reads and changes watch lists. A change may be repeated."""

    def __init__(
        self, asking: Asking, *, list_items_max: int = LIST_ITEMS_MAX, part_items_max: int = PART_ITEMS_MAX
    ) -> None:
        self._asking = asking
        self._list_items_max = list_items_max
        self._part_items_max = part_items_max
        self._turns = asyncio.Semaphore(WRITES_AT_ONCE)
        self._changes: Counter[str] = Counter()

    async def read(self, user_id: str) -> list[Watched]:
        """The whole list, what was added last first, without what is long over.

        Raises:
            Unavailable: PostgreSQL cannot be asked now.
        """
        rows = await self._asking.fetch(SQL["read_watched"], user_id, OVER_KEPT_DAYS, self._list_items_max)
        return [Watched(row["item_id"], row["since_us"]) for row in rows]

    async def add(self, user_id: str, item_id: str) -> None:
        """Put an item on the list, if it is not there. Whether there is such an item is up to the caller.

        Raises:
            WatchListFull, WatchListsFull: nothing was added.
            Unavailable: PostgreSQL cannot be asked now, or too many ask; whether it was added is not known.
        """
        bounds = (self._list_items_max, self._part_items_max, OVER_KEPT_DAYS)
        async with self._changing(user_id):
            rows = await self._asking.fetch(SQL["watch"], user_id, item_id, _part_of(user_id), *bounds)
        match rows[0]["outcome"]:
            case "list full":
                raise WatchListFull(self._list_items_max)
            case "part full":
                raise WatchListsFull

    async def remove(self, user_id: str, item_id: str) -> None:
        """Take an item off the list, if it is there.

        Raises:
            Unavailable: as above.
        """
        async with self._changing(user_id):
            await self._asking.fetch(SQL["unwatch"], user_id, item_id, _part_of(user_id))

    @asynccontextmanager
    async def _changing(self, user_id: str) -> AsyncIterator[None]:
        if self._changes[user_id] >= CHANGES_OF_ONE_MAX or self._changes.total() >= CHANGES_MAX:
            raise Overloaded("too many changes of watch lists are under way; try again")
        self._changes[user_id] += 1
        try:
            async with self._turns:
                yield
        finally:
            self._changes[user_id] -= 1
            if not self._changes[user_id]:
                del self._changes[user_id]


def _part_of(user_id: str) -> int:
    return int(shard_of(user_id)[1:])
