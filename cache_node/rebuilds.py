"""Notices what changes closed items without an event: shards that are rebuilt, whose items have another epoch from then
on, and dead letters that are stored late."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Any, Final, Protocol

from shared.domain.errors import Unavailable

logger = logging.getLogger(__name__)

LOOK_S: Final = 0.5
FAILED_MAX: Final = 2
"""Looks that fail one after the other. With the time-out of a question that is at most some seconds."""
# Each recovery adds rows, each letter is stored once, and none of them is ever removed. A retry counts from the commit
# of what the letter holds on.
_SQL: Final = """
    SELECT (SELECT coalesce(sum(shard_epoch), 0) FROM recoveries)::bigint
         + (SELECT count(*) FROM dead_letters WHERE outcome = 'stored') AS epochs"""


class Asks(Protocol):
    """:class:`shared.archive_reads.asking.Asking`, whose errors it shares."""

    async def fetch(self, query: str, *arguments: Any) -> list[Any]: ...


class Rebuilds:
    """Looks into PostgreSQL twice a second, for nodes, which keep values for longer than that.

    The first look has to be before anything is kept: a rebuilding between the two would not be noticed.

    While nothing can be seen, nothing that is kept is told; but it stays, since mostly nothing was rebuilt: PostgreSQL
    that was slow for seconds is to find the nodes as full as they were.
    """

    def __init__(
        self,
        asking: Asks,
        on_rebuilt: Callable[[], None],
        *,
        on_blind: Callable[[], None],
        on_sight: Callable[[], None],
    ) -> None:
        """
        Args:
            on_rebuilt: forgets what has an epoch in it.
            on_blind: for some looks nothing could be seen, or nobody looks any more. Tells nothing that is kept from
                now on. Called again and again.
            on_sight: a look has succeeded after that; ``on_rebuilt`` was called before it, where that was due.
        """
        self._asking = asking
        self._on_rebuilt = on_rebuilt
        self._on_blind = on_blind
        self._on_sight = on_sight
        self._epochs: int | None = None
        self._failed = 0
        self._is_blind = False
        self._is_running = False

    @property
    def epochs(self) -> int:
        """As of the last look: grows with every rebuilding and every letter; 0 before the first."""
        return self._epochs or 0

    async def look(self) -> None:
        """Once.

        Raises:
            Unavailable: PostgreSQL cannot be asked.
        """
        try:
            epochs = int((await self._asking.fetch(_SQL))[0]["epochs"])
        except Unavailable as error:
            self._failed += 1
            if self._failed >= FAILED_MAX:
                self._lose_sight(str(error))
            raise
        self._failed = 0
        before, self._epochs = self._epochs, epochs
        if before is not None and epochs != before:
            logger.info("shards were rebuilt, or dead letters stored: everything is forgotten")
            self._on_rebuilt()
        if self._is_blind and self._is_running:
            self._is_blind = False
            self._on_sight()

    def _lose_sight(self, why: str) -> None:
        if not self._is_blind:
            logger.warning("whether shards were rebuilt cannot be told, so nothing that is kept is told: %s", why)
        self._is_blind = True
        self._on_blind()

    async def run(self) -> None:
        """Look until cancelled; an archive that is away is asked again."""
        self._is_running = True
        try:
            while True:
                with contextlib.suppress(Unavailable):
                    await self.look()
                await asyncio.sleep(LOOK_S)
        finally:
            # Whoever goes on without it must not tell what it keeps.
            self._is_running, self._is_blind = False, True
            self._on_blind()
