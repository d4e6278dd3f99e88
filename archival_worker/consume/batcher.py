"""Collects messages into batches and asks for more: by size or deadline, bounded, at the archive's own pace. Pure.

The worker's loop asks :meth:`Batcher.next` what to do, does it, and asks again. Messages that arrive meanwhile
(during a write, say) are handed to :meth:`Batcher.received`. There is no clock and no network in here.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from math import ceil
from typing import Final, Generic, TypeVar

M = TypeVar("M")

_PULL_MIN: Final = 100
"""Where messages have many rows, a pull asks for this many all the same: with fewer, its round trips would count."""


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """Bounds of collecting.

    Attributes:
        rows_max: rows per batch. One message with more than that is a batch of its own.
        linger_s: how long the first message of a batch waits for others, in seconds.
        pull_messages: the most messages that one pull asks for. Waiting messages are bounded by this and by twice
            ``rows_max`` rows.
    """

    rows_max: int = 5_000
    linger_s: float = 0.020
    pull_messages: int = 5_000


@dataclass(frozen=True, slots=True)
class Pull:
    """Ask the stream for at most so many messages."""

    messages: int


@dataclass(frozen=True, slots=True)
class Write(Generic[M]):
    """Store these messages, acknowledge them, then ask again."""

    messages: list[M]


@dataclass(frozen=True, slots=True)
class Wait:
    """Wait for a message, or until this instant if there is one."""

    until_s: float | None


@dataclass(slots=True)
class _Waiting(Generic[M]):
    message: M
    rows: int
    arrived_s: float


class Pace:
    """How many rows a batch may have: half after a failure, a quarter more after each success.

    Otherwise a server that cannot store a whole batch within the statement time-out would get the same batch again and
    again, and never store anything.
    """

    def __init__(self, rows_max: int) -> None:
        self._rows_max = rows_max
        self.rows = rows_max

    def failed(self, rows: int) -> None:
        """A batch of so many rows was not stored."""
        self.rows = max(1, min(self.rows, rows) // 2)

    def succeeded(self) -> None:
        """A batch was stored."""
        self.rows = min(self._rows_max, self.rows + self.rows // 4 + 1)


class Batcher(Generic[M]):
    """The state between two writes: what waits, and how many messages of the last pull are still to come."""

    def __init__(self, limits: BatchLimits, pace: Pace | None = None) -> None:
        self._limits = limits
        self._pace = pace or Pace(limits.rows_max)
        self._waiting: deque[_Waiting[M]] = deque()
        self._rows = 0
        self._expected = 0
        # Messages and rows since the last pull, and how many rows a message had before it.
        self._came = 0
        self._came_rows = 0
        self._rows_each = 1.0

    @property
    def waiting(self) -> int:
        """Messages that wait."""
        return len(self._waiting)

    @property
    def is_full(self) -> bool:
        """Whether a whole batch waits, so that a write comes next, or comes after the pull that is due."""
        return self._rows >= self._pace.rows

    @property
    def pulling(self) -> bool:
        """Whether the stream owes messages of the last pull."""
        return self._expected > 0

    def received(self, message: M, rows: int, now_s: float) -> bool:
        """Keep a message that needs ``rows`` rows. Returns whether there may be something to do now."""
        self._waiting.append(_Waiting(message, rows, now_s))
        self._rows += rows
        self._came += 1
        self._came_rows += rows
        self._expected = max(0, self._expected - 1)
        return len(self._waiting) == 1 or self._expected == 0 or self._rows >= self._pace.rows

    def pull_ended(self) -> None:
        """The stream ended the last pull before all of its messages had come."""
        self._expected = 0

    def next(self, now_s: float) -> Pull | Write[M] | Wait:
        """What to do now. A pull comes before a write, so that messages arrive while the write is under way."""
        rows_max = self._pace.rows
        if self._expected == 0 and self._rows < 2 * rows_max:
            self._expected = self._worth_asking_for(rows_max)
            return Pull(self._expected)
        if not self._waiting:
            return Wait(None)
        deadline_s = self._waiting[0].arrived_s + self._limits.linger_s
        if self._rows >= rows_max or now_s >= deadline_s:
            return Write(self._take())
        return Wait(deadline_s)

    def _worth_asking_for(self, rows_max: int) -> int:
        """How many messages to pull: two batches, or one where one waits already, if their messages have as many rows
        as the last ones.

        So a busy worker gets one batch with each write. If it got several at once, the first write would wait until all
        of them are decoded, and later ones would have nothing to decode beside them.
        """
        if self._came:
            self._rows_each = self._came_rows / self._came
            self._came = self._came_rows = 0
        worth = ceil((rows_max if self._rows >= rows_max else 2 * rows_max) / self._rows_each)
        # A message has at least one row, so a small batch needs few messages. What waits too long is redelivered.
        return min(self._limits.pull_messages, 2 * rows_max, max(_PULL_MIN, worth))

    def _take(self) -> list[M]:
        """The longest run of messages from the front that fits into a batch, at least one."""
        taken: list[M] = []
        rows = 0
        while self._waiting and (not taken or rows + self._waiting[0].rows <= self._pace.rows):
            first = self._waiting.popleft()
            rows += first.rows
            taken.append(first.message)
        self._rows -= rows
        return taken

    def drain(self) -> list[M]:
        """Take out everything that waits, to be given back to the stream."""
        messages = [waiting.message for waiting in self._waiting]
        self._waiting.clear()
        self._rows = 0
        return messages
