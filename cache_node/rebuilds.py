"""Notices what changes closed items without an event: a rebuilt shard, whose items have another epoch from then on, and
a dead letter that a retry has stored."""

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
"""Failed looks in a row before the node is blind. With the time-out of a question that takes at most some seconds."""
# Each recovery adds rows, each letter is stored once, and none of them is ever removed, so the number only grows. A
# retry counts from the COMMIT that also stores what the letter holds.
_SQL: Final = """
    SELECT (SELECT coalesce(sum(shard_epoch), 0) FROM recoveries)::bigint
         + (SELECT count(*) FROM dead_letters WHERE outcome = 'stored') AS epochs"""


class Asks(Protocol):
    """:class:`shared.archive_reads.asking.Asking`, whose errors it shares."""

    async def fetch(self, query: str, *arguments: Any) -> list[Any]: ...


class Rebuilds:
    """Looks into PostgreSQL twice a second, for nodes, which keep values for longer than that.

    The first look has to be before anything is kept: a rebuilding between the two would not be noticed.

    While PostgreSQL cannot be asked, kept values are not served. But they stay, since mostly nothing was rebuilt: after
    some slow seconds of PostgreSQL the nodes must be as full as before.
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
            on_blind: must stop serving kept values: some looks in a row have failed, or :meth:`run` has ended. Called
                after each further failure.
            on_sight: a look has succeeded after that; ``on_rebuilt`` was called before it if that was due.
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
        """A number that grows with every rebuilding and stored letter, as of the last look; 0 before the first."""
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
            logger.warning("cannot see whether shards were rebuilt, so kept values are not served: %s", why)
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
            # If the process goes on without this task, it must not serve kept values.
            self._is_running, self._is_blind = False, True
            self._on_blind()
