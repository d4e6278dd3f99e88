"""What a node still owes to one caller: answers gather here and go in as few messages as possible."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from shared.pacing.backoff import set_within
from shared.read_cache.groups.shelf import nothing_heard
from shared.read_cache.peers import cache_pb2 as pb
from shared.read_cache.peers.wire import ANSWER_BYTES, KEYS_PER_ASK_MAX
from shared.read_cache.remote import UNHEARD, Heard

Ring = tuple[int, int]
"""Epoch and fingerprint of a ring."""

LOADING_MAX: Final = 10_000
"""The most keys that one caller may wait for; further ones are answered with BUSY."""
_UNSENT_BYTES_MAX: Final = 8 * 1024**2
_UNSENT_MAX: Final = 50_000
_SIGNS_OF_LIFE_PER_TIMEOUT: Final = 3
_FRESH_MS_MAX: Final = 2**32 - 1


class Line:
    """Answers of one stream, in the order in which they became known."""

    def __init__(self, ring_now: Callable[[], Ring | None], heard_now: Callable[[], Heard] = nothing_heard) -> None:
        self._ring_now = ring_now
        self._heard_now = heard_now
        self._heard = UNHEARD
        """When the first unsent answer was added, which was looked up in the same step."""
        self._ring: Ring | None = None
        """The ring that was in force when the first unsent answer was added."""
        self._unsent: list[tuple[int, int, bytes, int]] = []
        """Number, state, value, and for how many milliseconds it may be kept."""
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
        """How long this node may be silent before the caller takes it for dead."""

    def add(self, number: int, state: int, value: bytes = b"", fresh_s: float = 0.0, *, ringless: bool = False) -> None:
        """Add one answer."""
        unsent = self._unsent
        if not unsent:
            self._ring = self._ring_now()
            self._heard = self._heard_now()
            self._changed.set()
            self._sent.clear()
        unsent.append((number, state, value, min(int(fresh_s * 1_000), _FRESH_MS_MAX)))
        self._bytes += len(value)
        if ringless:
            self._ringless.add(number)
        if self._bytes > _UNSENT_BYTES_MAX or len(unsent) > _UNSENT_MAX:
            self._has_room.clear()

    async def room(self) -> None:
        """Wait while the caller takes no answers, so that nothing more is read from it meanwhile."""
        await self._has_room.wait()

    def take(self) -> pb.Answer:
        """The next message: some of what is unsent, perhaps nothing.

        The ring is looked at here again, at the last moment. Where it has changed since, or this process has slept for
        so long that it cannot rely on it any more, no value is sent under it.
        """
        ring = self._ring_now()
        taken = self._take()
        if ring != self._ring:
            taken = [each if each[0] in self._ringless else (each[0], pb.OTHER_RING, b"", each[3]) for each in taken]
        numbers, states, values, fresh_ms = zip(*taken, strict=True) if taken else ((), (), (), ())
        if self._ringless:
            self._ringless.difference_update(numbers)
        if not self._unsent:
            self._has_room.set()
        epoch, fingerprint = ring or (0, 0)
        return pb.Answer(
            ring=pb.RingId(epoch=epoch, fingerprint=fingerprint),
            numbers=numbers,
            states=bytes(states),
            values=values,
            fresh_ms=fresh_ms,
            heard=pb.Heard(changes=self._heard.changes, rebuilds=self._heard.rebuilds, stream=self._heard.stream),
        )

    def _take(self) -> list[tuple[int, int, bytes, int]]:
        """Take as many unsent answers as a message may hold."""
        unsent = self._unsent
        if len(unsent) <= KEYS_PER_ASK_MAX and self._bytes < ANSWER_BYTES:
            self._unsent, self._bytes = [], 0
            return unsent
        count, size = 0, 0
        for _, _, value, _ in unsent[:KEYS_PER_ASK_MAX]:
            count += 1
            size += len(value)
            if size >= ANSWER_BYTES:
                break
        self._unsent = unsent[count:]
        self._bytes -= size
        return unsent[:count]

    async def write(self, send: Callable[[pb.Answer], Awaitable[None]]) -> None:
        """Send what is added, and signs of life while something is being loaded, until cancelled."""
        while True:
            if self.loading:
                await set_within(self._changed, self.timeout_s / _SIGNS_OF_LIFE_PER_TIMEOUT)
            else:
                await self._changed.wait()
            self._changed.clear()
            await send(self.take())
            while self._unsent:
                await send(self.take())
            self._sent.set()

    def began(self) -> None:
        """The load of one more key has begun."""
        self.loading += 1
        if self.loading == 1:
            self._loaded.clear()
            # The writer may wait for an answer without an end, and has to send signs of life from now on.
            self._changed.set()

    def ended(self) -> None:
        """The load of one key has ended."""
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
