"""Many callers who ask for one thing at the same time share one question.

A flight belongs to nobody who waits for it: each waiter has a future of its own, so the first caller may be cancelled
like any other, and the rest get the result. Errors go to those who waited, and nothing is kept of a flight afterwards.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import Generic, TypeVar

from shared.read_cache.errors import Overloaded
from shared.read_cache.membership.clock import now_s

T = TypeVar("T")


class Flight(Generic[T]):
    """One question under way. Whoever began it calls :meth:`land` or :meth:`crash`, once."""

    __slots__ = ("_house", "_waiters", "begun_s", "key")

    def __init__(self, house: Singleflight[T], key: str) -> None:
        self._house = house
        self._waiters: list[asyncio.Future[T]] = []
        self.begun_s = now_s()
        self.key = key

    @property
    def is_current(self) -> bool:
        """Whether nothing was forgotten meanwhile that makes what is under way out of date."""
        return self._house._current.get(self.key) is self

    @property
    def waiters(self) -> int:
        """Those who wait, or did until they were cancelled."""
        return len(self._waiters)

    def land(self, result: T) -> None:
        """Give the result to all who wait."""
        for waiter in self._house._ended(self):
            if not waiter.done():
                waiter.set_result(result)

    def crash(self, error: Exception) -> None:
        """Give the error to all who wait. Where all of them have gone, nobody hears of it."""
        for waiter in self._house._ended(self):
            if not waiter.done():
                waiter.set_exception(error)


class Singleflight(Generic[T]):
    """Flights by key.

    Args:
        flights_max: flights in the air at a time, those that were forgotten among them.
        waiters_max: futures that wait for the flights.
        joined_for_s: nobody joins an older flight; the time counts on while this process sleeps.
    """

    def __init__(self, *, flights_max: int, waiters_max: int, joined_for_s: float = math.inf) -> None:
        self._flights_max = flights_max
        self._joined_for_s = joined_for_s
        self._waiters_max = waiters_max
        self._current: dict[str, Flight[T]] = {}
        self._in_the_air: set[Flight[T]] = set()
        self._waiting = 0

    def __len__(self) -> int:
        """Flights in the air now."""
        return len(self._in_the_air)

    def has(self, key: str) -> bool:
        """Whether a call of :meth:`join` would wait for a flight that is in the air already."""
        return self._joinable(key) is not None

    def _joinable(self, key: str) -> Flight[T] | None:
        flight = self._current.get(key)
        return flight if flight is not None and now_s() - flight.begun_s < self._joined_for_s else None

    def join(self, key: str, begin: Callable[[Flight[T]], None]) -> asyncio.Future[T]:
        """A new future for the result of the key's flight; ``begin`` starts a flight where there is none.

        Cancelling the future cancels nothing else. Await it: asyncio complains about an error that nobody takes.

        Raises:
            Overloaded: too many flights are in the air, or too many wait.
            Exception: what ``begin`` raised; then there is no flight.
        """
        if self._waiting >= self._waiters_max:
            raise Overloaded(f"{self._waiting:,} readers wait for values")
        waiter: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        flight = self._joinable(key)
        if flight is not None:
            flight._waiters.append(waiter)
            self._waiting += 1
            return waiter
        if len(self._in_the_air) >= self._flights_max:
            raise Overloaded(f"{len(self._in_the_air):,} values are being loaded")
        flight = self._current[key] = Flight(self, key)
        self._in_the_air.add(flight)
        flight._waiters.append(waiter)
        self._waiting += 1
        try:
            begin(flight)
        except BaseException:
            self._ended(flight)
            raise
        return waiter

    def forget(self, key: str) -> bool:
        """The next call for the key begins a flight of its own; the one in the air ends as it would have, for those who
        wait for it already. Returns whether there was one."""
        return self._current.pop(key, None) is not None

    def forget_all(self) -> None:
        """Likewise for all keys, in constant time."""
        self._current = {}

    def _ended(self, flight: Flight[T]) -> list[asyncio.Future[T]]:
        """Take the flight out of the air. Returns the waiters."""
        self._in_the_air.discard(flight)
        if self._current.get(flight.key) is flight:
            del self._current[flight.key]
        waiters, flight._waiters = flight._waiters, []
        self._waiting -= len(waiters)
        return waiters
