"""One group's questions to its origin: through the gate, within a time, and counted."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from shared.read_cache.errors import OriginSlow, Overloaded
from shared.read_cache.groups.shelf import Load, LoadMany, Shelf
from shared.read_cache.stats import Stats


class Questions:
    """
    Args:
        load_many: None where the origin is asked for each key alone.
        timeout_s: for one question, counted from when it has passed the gate.
        rated: where loads are counted.
    """

    def __init__(self, load: Load, load_many: LoadMany | None, *, timeout_s: float, shelf: Shelf, rated: Stats) -> None:
        self._load = load
        self._load_many = load_many
        self._timeout_s = timeout_s
        self._shelf = shelf
        self._stats = shelf.stats
        self._rated = rated

    @property
    def tells_of_many(self) -> bool:
        """Whether one question may be about several keys."""
        return self._load_many is not None

    async def ask(self, what: str, keys: Sequence[str]) -> list[bytes | None]:
        """The values of these keys, in their order.

        Args:
            what: as errors name them.

        Raises:
            Overloaded: the origin has more to do than it can.
            OriginSlow: it did not answer in time.
            Exception: what ``load`` raised.
        """
        try:
            async with self._shelf.gate.passed():
                self._rated.loads += 1
                self._stats.passing_loads += self._rated is not self._stats
                try:
                    async with asyncio.timeout(self._timeout_s) as timeout:
                        return await self._loaded(keys)
                except TimeoutError as error:
                    self._stats.load_errors += 1
                    if timeout.expired():
                        raise OriginSlow(what, self._timeout_s) from error
                    raise
                except Exception:
                    self._stats.load_errors += 1
                    raise
        except Overloaded:
            self._stats.shed += 1
            raise

    async def _loaded(self, keys: Sequence[str]) -> list[bytes | None]:
        if len(keys) == 1 or self._load_many is None:
            return [await self._load(key) for key in keys]
        found = await self._load_many(keys)
        return [found.get(key) for key in keys]
