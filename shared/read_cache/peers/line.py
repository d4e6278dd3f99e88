"""What a node still owes to one caller: answers gather here and go in as few messages as possible."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from shared.backoff import set_within
from shared.read_cache.peers import cache_pb2 as pb
from shared.read_cache.peers.wire import ANSWER_BYTES, KEYS_PER_ASK_MAX

Ring = tuple[int, int]
"""Epoch and fingerprint."""

LOADING_MAX: Final = 10_000
"""Of one caller; further keys are answered with BUSY."""
_UNSENT_BYTES_MAX: Final = 8 * 1024**2
_UNSENT_MAX: Final = 50_000
_SIGNS_OF_LIFE_PER_TIMEOUT: Final = 3
_FRESH_MS_MAX: Final = 2**32 - 1


class Line:
    """Answers of one stream, in the order in which they became known."""

    def __init__(self, ring_now: Callable[[], Ring | None]) -> None:
        self._ring_now = ring_now
        self._ring: Ring | None = None
        """That was in force when the first of what is unsent was added."""
        self._numbers: list[int] = []
        self._states = bytearray()
        self._values: list[bytes] = []
        self._fresh_ms: list[int] = []
        self._ringless: set[int] = set()
        self._bytes = 0
        self._changed = asyncio.Event()
        self._has_room = asyncio.Event()
        self._has_room.set()
        self._sent = asyncio.Event()
        self._sent.set()
        self._loaded = asyncio.Event()
        self._loaded.set()
        self.loading = 0
        """Keys whose answer will come later."""
        self.timeout_s = 1.0
        """After so much silence the caller takes this node for dead."""

    def add(self, number: int, state: int, value: bytes = b"", fresh_s: float = 0.0, *, ringless: bool = False) -> None:
        """One answer."""
        if not self._numbers:
            self._ring = self._ring_now()
            self._changed.set()
            self._sent.clear()
        self._numbers.append(number)
        self._states.append(state)
        self._values.append(value)
        self._fresh_ms.append(min(int(fresh_s * 1_000), _FRESH_MS_MAX))
        self._bytes += len(value)
        if ringless:
            self._ringless.add(number)
        if self._bytes > _UNSENT_BYTES_MAX or len(self._numbers) > _UNSENT_MAX:
            self._has_room.clear()

    async def room(self) -> None:
        """Wait while the caller takes no answers: until then nothing more of it is read."""
        await self._has_room.wait()

    def take(self) -> pb.Answer:
        """The next message: some of what is unsent, perhaps nothing.

        The ring is looked at here again, at the last moment. Where it has changed since, or this process has slept
        for so long that it cannot rely on it any more, nobody is told a value under it.
        """
        ring = self._ring_now()
        count, size = 0, 0
        for value in self._values[:KEYS_PER_ASK_MAX]:
            count += 1
            size += len(value)
            if size >= ANSWER_BYTES:
                break
        numbers, self._numbers = self._numbers[:count], self._numbers[count:]
        states, self._states = self._states[:count], self._states[count:]
        values, self._values = self._values[:count], self._values[count:]
        fresh_ms, self._fresh_ms = self._fresh_ms[:count], self._fresh_ms[count:]
        self._bytes -= size
        if ring != self._ring:
            for index, number in enumerate(numbers):
                if number not in self._ringless:
                    states[index], values[index] = pb.OTHER_RING, b""
        if self._ringless:
            self._ringless.difference_update(numbers)
        if not self._numbers:
            self._has_room.set()
        epoch, fingerprint = ring or (0, 0)
        return pb.Answer(
            ring=pb.RingId(epoch=epoch, fingerprint=fingerprint),
            numbers=numbers,
            states=bytes(states),
            values=values,
            fresh_ms=fresh_ms,
        )

    async def write(self, send: Callable[[pb.Answer], Awaitable[None]]) -> None:
        """Send what is added, and signs of life while something is being loaded, until cancelled."""
        while True:
            if self.loading:
                await set_within(self._changed, self.timeout_s / _SIGNS_OF_LIFE_PER_TIMEOUT)
            else:
                await self._changed.wait()
            self._changed.clear()
            await send(self.take())
            while self._numbers:
                await send(self.take())
            self._sent.set()

    def began(self) -> None:
        """One more is being loaded."""
        self.loading += 1
        if self.loading == 1:
            self._loaded.clear()
            # The writer may wait for an answer without an end, and has to send signs of life from now on.
            self._changed.set()

    def ended(self) -> None:
        """One fewer."""
        self.loading -= 1
        if not self.loading:
            self._loaded.set()

    async def loaded(self) -> None:
        """Wait until nothing is being loaded."""
        await self._loaded.wait()

    async def settled(self) -> None:
        """Wait until nothing is owed any more."""
        while self.loading or not self._sent.is_set():
            await self._loaded.wait()
            await self._sent.wait()
