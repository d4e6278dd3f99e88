"""Tells ``/ready`` whether PostgreSQL answers, by at most two questions a second, however many callers there are."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import Any, Final, Protocol

from shared.domain.errors import BiddingError

CHECK_EVERY_S: Final = 0.5


class Asks(Protocol):
    """:class:`shared.archive_reads.asking.Asking`, whose errors it shares."""

    async def fetch(self, query: str, *arguments: Any) -> list[Any]: ...


class ArchiveCheck:
    """One question for all who ask while it is under way, and for half a second after its answer."""

    def __init__(self, asking: Asks, *, clock: Callable[[], float] = monotonic) -> None:
        self._asking = asking
        self._clock = clock
        self._check: asyncio.Task[str | None] | None = None
        self._until_s = 0.0

    async def trouble(self) -> str | None:
        """What is wrong with PostgreSQL; None: it answers."""
        check = self._check
        if check is None or (check.done() and self._clock() >= self._until_s):
            check = self._check = asyncio.get_running_loop().create_task(self._ask(), name="is the archive there")
        # A caller that gives up waiting must not cancel the question for the others.
        return await asyncio.shield(check)

    async def _ask(self) -> str | None:
        try:
            await self._asking.fetch("SELECT 1")
        except BiddingError as error:
            return str(error)
        finally:
            self._until_s = self._clock() + CHECK_EVERY_S
        return None
