"""What tests of one rude client against all others share: it is rude, they are timed, and the memory is watched.

How long a bid or a frame takes on a machine that others use too says little by itself. So each test compares within one
run: the others are timed without the attack, with it, and without it again. An attack that works slows them every time,
by a factor of ten and more; a machine that stands still for a while spoils one round. So the first round in which the
attack at most doubles the others' p99 will do, and only an attack that never lets one pass has worked.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import math
import os
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import asdict
from typing import Final

import psutil

from tests.crowds import rude
from tests.crowds.rude import Rude

logger = logging.getLogger(__name__)

GROWS_MOST_BYTES: Final = 50_000_000
TIMES_MOST: Final = 2.0
FLOOR_S: Final = 0.03
FLOOR_MAX_S: Final = 0.2
"""A p99 that is always good enough, in seconds: two frames of a screen, on a machine at rest. If the others take 1 to
5 ms, the CPU that an attack takes from the shared machine more than doubles that, however fair the service is. If
several processes want each core, each step of a bid waits as many times longer for its turn, and this bound grows as
much, up to ``FLOOR_MAX_S``."""
ROUNDS_MAX: Final = 10
PATIENCE_S: Final = 60.0

Measure = Callable[[], Awaitable[list[float]]]
"""Times the others, about a hundred times; the times in seconds."""


def quantile(seconds: Iterable[float], share: float) -> float:
    """The smallest value that this share of the values (0 to 1) does not exceed; infinite if there are no values."""
    ascending = sorted(seconds)
    return ascending[max(0, math.ceil(share * len(ascending)) - 1)] if ascending else math.inf


class Memory:
    """The most that a process had above what it had at first, in bytes."""

    def __init__(self, pid: int | None) -> None:
        assert pid is not None, "it does not run"
        self._process = psutil.Process(pid)
        self._before = self._process.memory_info().rss
        self.grown_bytes = 0

    def look(self) -> None:
        """Note what it has now."""
        self.grown_bytes = max(self.grown_bytes, self._process.memory_info().rss - self._before)


@contextlib.asynccontextmanager
async def watched(pid: int | None, *, every_s: float = 0.1) -> AsyncIterator[Memory]:
    """Look at a process again and again while the block runs."""
    memory = Memory(pid)

    async def look() -> None:
        while True:
            memory.look()
            await asyncio.sleep(every_s)

    looking = asyncio.create_task(look())
    try:
        yield memory
    finally:
        looking.cancel()
        memory.look()


class Attack:
    """Rude clients that can be let loose and called back.

    Attributes:
        counts: what they have done while they were loose the last time; see :class:`tests.crowds.rude.Counts`.
    """

    def __init__(self, process: Process) -> None:
        self._process = process
        self.counts: dict[str, int] = {}

    @contextlib.asynccontextmanager
    async def going_on(self) -> AsyncIterator[None]:
        """They are loose while the block runs, from when all have connected or were refused."""
        await self._say(b"on\n")
        yield
        await self._say(b"off\n")

    async def _say(self, line: bytes) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(line)
        async with asyncio.timeout(PATIENCE_S):
            self.counts = json.loads(await self._process.stdout.readline())


@contextlib.asynccontextmanager
async def ready(clients: Rude) -> AsyncIterator[Attack]:
    """These clients, in a process of their own, which ends with the block."""
    process = await asyncio.create_subprocess_exec(sys.executable, "-S", rude.__file__, stdin=PIPE, stdout=PIPE)
    try:
        assert process.stdin is not None
        process.stdin.write(json.dumps(asdict(clients)).encode() + b"\n")
        yield Attack(process)
    finally:
        process.kill()
        await process.communicate()


def floor_s() -> float:
    """``FLOOR_S``, as many times as processes want each core, on average over the last minute."""
    per_core = os.getloadavg()[0] / (os.cpu_count() or 1)
    return min(FLOOR_S * max(1.0, per_core), FLOOR_MAX_S)


async def assert_at_most_doubled(measure: Measure, clients: Rude, pid: int | None) -> None:
    """Beside these clients the p99 of what is measured is at most doubled, and the process keeps its memory.

    Raises:
        AssertionError: tells what was measured in each of the rounds.
    """
    told = []
    await measure()  # what is made when it is first needed is there
    before = await measure()
    async with ready(clients) as attack, watched(pid) as memory:
        for _ in range(ROUNDS_MAX):
            async with attack.going_on():
                during = await measure()
            after = await measure()
            # The better of both sides: a disturbance of one of them is no excuse.
            quiet_s = min(quantile(before, 0.99), quantile(after, 0.99))
            told.append(f"{quiet_s * 1000:.1f} -> {quantile(during, 0.99) * 1000:.1f} ms, {attack.counts}")
            logger.info(told[-1])
            assert attack.counts["opened"] > 0, "nobody attacked"
            if quantile(during, 0.99) <= max(TIMES_MOST * quiet_s, floor_s()):
                break
            before = after
        else:
            raise AssertionError("p99 of the others, without and with the attack:\n" + "\n".join(told))
    assert memory.grown_bytes < GROWS_MOST_BYTES, told


async def bid_delays(port: int, item: str, *, count: int = 120, every_s: float = 0.004) -> list[float]:
    """Send bids at a fixed rate, whether or not others are answered, and time each. It may be too low."""
    loop = asyncio.get_running_loop()
    free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
    opened: list[asyncio.StreamWriter] = []

    async def bid(amount: int) -> float:
        if not free:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            opened.append(writer)
        else:
            reader, writer = free.pop()
        body = b'{"user_id":"ada","amount":%d}' % amount
        head = b"POST /api/v1/items/%b/bid HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % (
            item.encode(),
            len(body),
        )
        began_s = loop.time()
        writer.write(head + body)
        answer = await reader.readuntil(b"\r\n\r\n")
        took_s = loop.time() - began_s
        await reader.readexactly(int(answer.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]))
        assert answer[9:12] in (b"200", b"201"), answer
        free.append((reader, writer))
        return took_s

    bidding: list[asyncio.Task[float]] = []
    try:
        for amount in range(1, count + 1):
            bidding.append(asyncio.create_task(bid(amount)))
            await asyncio.sleep(every_s)
        async with asyncio.timeout(PATIENCE_S):
            return await asyncio.gather(*bidding)
    finally:
        for task in bidding:
            task.cancel()
        for writer in opened:
            writer.transport.abort()
