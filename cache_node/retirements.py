"""Notices items whose bids leave the archive: a node forgets the pages of their histories, which have no event for it.

What is served of the item itself does not change. A page that is served for a second too long is still a right one, so
this need not be quick.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, Final, Protocol

from shared.archive_cache.reads import name_of_group
from shared.archive_reads.keys import history_key
from shared.archive_reads.statements import statements
from shared.domain.errors import Unavailable
from shared.read_cache.cache import ReadCache

LOOK_S: Final = 1.0
ITEMS_PER_LOOK: Final = 1_000
_SQL: Final = statements("retired")


class Asks(Protocol):
    """:class:`shared.archive_reads.asking.Asking`, whose errors it shares."""

    async def fetch(self, query: str, *arguments: Any) -> list[Any]: ...


class Retirements:
    """Looks into PostgreSQL every second."""

    def __init__(self, asking: Asks, cache: ReadCache) -> None:
        self._asking = asking
        self._cache = cache
        self._seen: int | None = None

    async def look(self) -> int:
        """Once. Returns how many items have retired since the look before; 0 at the first, when nothing is kept yet.

        Raises:
            Unavailable: PostgreSQL cannot be asked.
        """
        if self._seen is None:
            self._seen = int((await self._asking.fetch(_SQL["read_newest"]))[0]["n"])
            return 0
        rows = await self._asking.fetch(_SQL["read_retired_after"], self._seen, ITEMS_PER_LOOK)
        if rows:
            self._seen = rows[-1]["n"]
            self._cache[name_of_group("items")].forget(*(history_key(row["item_id"]) for row in rows))
            self._cache[name_of_group("pages")].forget_all()
        return len(rows)

    async def run(self) -> None:
        """Look until cancelled; an archive that is away is asked again."""
        while True:
            found = 0
            with contextlib.suppress(Unavailable):
                found = await self.look()
            await asyncio.sleep(0 if found == ITEMS_PER_LOOK else LOOK_S)
