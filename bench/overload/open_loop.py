"""A generator whose requests are due at a pace that no answer changes (an open loop).

A closed loop waits for an answer before it sends the next request. So it asks a server that stalls less often, and no
figure has the wait of the requests that would have come meanwhile: coordinated omission. Here a latency counts from
when its request was due, even if all connections were busy then.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple, cast

import click
from typing_extensions import override

from bench.clients.answers import status_of

_TICK_S: Final = 0.001
_DRAIN_S: Final = 10.0


class Answer(NamedTuple):
    """One request: when it was due (``time.perf_counter``), how long after that its answer came, and its status."""

    due_s: float
    took_s: float
    status: int


@dataclass(slots=True)
class Course:
    """What became of the requests that were due in a span of time.

    ``unanswered``: those without an answer when the generator gave up. ``answered_in_time``: answers that came within
    the span, to requests of any span.
    """

    answers: list[Answer] = field(default_factory=list)
    offered: int = 0
    unanswered: int = 0
    answered_in_time: list[Answer] = field(default_factory=list)


class _Line(asyncio.Protocol):
    """A connection with one request in flight at most."""

    def __init__(self, pool: _Pool) -> None:
        self._pool = pool
        self._buffer = b""
        self._due_s = 0.0
        self.is_busy = False
        self.transport: asyncio.Transport | None = None

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def send(self, request: bytes, due_s: float) -> None:
        assert self.transport is not None
        if self.transport.is_closing():
            raise click.ClickException("the server closed a connection without being asked to")
        self._due_s, self.is_busy = due_s, True
        self.transport.write(request)

    @override
    def data_received(self, data: bytes) -> None:
        if self._buffer:
            data = self._buffer + data
        status = status_of(data)
        if status is None:
            self._buffer = data
            return
        self._buffer = b""
        self.is_busy = False
        now_s = time.perf_counter()
        self._pool.course.answers.append(Answer(self._due_s, now_s - self._due_s, status))
        self._pool.free_again(self)

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        self.is_busy = False


class _Pool:
    """Connections, and the requests that are due and wait for a free one."""

    def __init__(self, requests: Iterator[bytes]) -> None:
        self._requests = requests
        # In turn, so that the server does not close one because it has been idle for too long.
        self._free: deque[_Line] = deque()
        self._waiting: deque[float] = deque()
        self.lines: list[_Line] = []
        self.course = Course()

    def add(self, line: _Line) -> None:
        self.lines.append(line)
        self._free.append(line)

    def due(self, due_s: float) -> None:
        self.course.offered += 1
        if self._free:
            self._free.popleft().send(next(self._requests), due_s)
        else:
            self._waiting.append(due_s)

    def free_again(self, line: _Line) -> None:
        if self._waiting:
            line.send(next(self._requests), self._waiting.popleft())
        else:
            self._free.append(line)

    def open(self) -> int:
        """Requests without an answer."""
        return len(self._waiting) + sum(line.is_busy for line in self.lines)


async def offer(
    port: int,
    requests: Iterator[bytes],
    *,
    paces: list[tuple[float, float]],
    connections: int,
    on_change: Callable[[], object] = lambda: None,
) -> list[Course]:
    """Offer requests to a server on this machine, at one pace after the other, without a pause between them.

    Args:
        paces: requests a second, and for how many seconds.
        connections: the most requests that are on their way; those that are due beyond it wait, and their time counts.
        on_change: called when a pace begins, and when the last one ends.

    Returns:
        a course for each pace, of the requests that were due in it.
    """
    loop = asyncio.get_running_loop()
    pool = _Pool(requests)
    for _ in range(connections):
        pool.add((await loop.create_connection(lambda: _Line(pool), "127.0.0.1", port))[1])
    starts: list[float] = []
    at_s = time.perf_counter()
    offered: list[int] = []
    for rate, seconds in paces:
        on_change()
        starts.append(at_s)
        before = pool.course.offered
        until_s, sent = at_s + seconds, 0
        while (now_s := time.perf_counter()) < until_s:
            due = int((now_s - at_s) * rate)
            for number in range(sent, due):
                pool.due(at_s + number / rate)
            sent = due
            await asyncio.sleep(_TICK_S)
        offered.append(pool.course.offered - before)
        at_s = until_s
    on_change()
    deadline_s = time.perf_counter() + _DRAIN_S
    while pool.open() and time.perf_counter() < deadline_s:  # noqa: ASYNC110 - an event would cost each answer a look
        await asyncio.sleep(0.01)
    for line in pool.lines:
        if line.transport is not None:
            line.transport.abort()
    ends = [*starts[1:], float("inf")]
    courses = [
        Course([answer for answer in pool.course.answers if start <= answer.due_s < end], count)
        for start, end, count in zip(starts, ends, offered, strict=True)
    ]
    for course, start, (_, seconds) in zip(courses, starts, paces, strict=True):
        course.unanswered = course.offered - len(course.answers)
        course.answered_in_time = [
            answer for answer in pool.course.answers if start <= answer.due_s + answer.took_s < start + seconds
        ]
    return courses
