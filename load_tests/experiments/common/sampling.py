"""CPU and memory of every component and of the generator, while something runs."""

from __future__ import annotations

import asyncio
import contextlib
import time
from bisect import bisect_left, bisect_right
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import psutil

from load_tests.experiments.common.results import Use

INTERVAL_S: Final = 0.5
GENERATOR: Final = "generator"

Roots = Mapping[str, Iterable[int]]
"""Process ids by component; their descendants count with them."""


class Look(NamedTuple):
    """What one look at a component found: CPU seconds so far by process, and bytes."""

    cpu_s: dict[int, float]
    memory: int


@dataclass(slots=True)
class Samples:
    """All looks of a run, with the time of each (``time.monotonic``)."""

    at_s: list[float] = field(default_factory=list)
    looks: list[dict[str, Look]] = field(default_factory=list)
    busy_s: list[float] = field(default_factory=list)

    def between(self, start_s: float, end_s: float, cores: int) -> tuple[dict[str, Use], float]:
        """What each component used from ``start_s`` to ``end_s``, and which share of the machine's cores was in use.

        Nothing where there were fewer than two looks at all.
        """
        if len(self.at_s) < 2:
            return {}, 0.0
        first, last = bisect_left(self.at_s, start_s), bisect_right(self.at_s, end_s) - 1
        if last <= first:
            # A short time, or a machine too busy to look twice in it: the looks before and after it.
            first = max(0, bisect_right(self.at_s, start_s) - 1)
            last = min(bisect_left(self.at_s, end_s), len(self.at_s) - 1)
            if last <= first:
                first, last = max(0, last - 1), max(1, last)
        took_s = self.at_s[last] - self.at_s[first]
        uses = {name: self._use(name, first, last, took_s) for name in self.looks[last]}
        busy = (self.busy_s[last] - self.busy_s[first]) / (took_s * cores)
        return uses, min(1.0, max(0.0, busy))

    def _use(self, name: str, first: int, last: int, took_s: float) -> Use:
        before = self.looks[first].get(name, Look({}, 0)).cpu_s
        looks = [look[name] for look in self.looks[first : last + 1] if name in look]
        # A process that was not there at the first look has begun since, and one that has ended used what it had then.
        after = {pid: cpu_s for look in looks for pid, cpu_s in look.cpu_s.items()}
        spent = {pid: cpu_s - before.get(pid, 0.0) for pid, cpu_s in after.items()}
        memory = max(look.memory for look in looks)
        hottest = max(spent.values(), default=0.0) / took_s
        count = max(len(look.cpu_s) for look in looks)
        return Use(round(sum(spent.values()) / took_s, 3), round(hottest, 3), round(memory / 1e6, 1), max(1, count))


@contextlib.asynccontextmanager
async def sampling(roots: Callable[[], Roots]) -> AsyncIterator[Samples]:
    """Look at these processes twice a second while the block runs."""
    samples = Samples()
    task = asyncio.create_task(_sample(samples, roots))
    try:
        yield samples
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def _sample(samples: Samples, roots: Callable[[], Roots]) -> None:
    while True:
        samples.looks.append({name: _look(pids) for name, pids in roots().items()})
        samples.at_s.append(time.monotonic())
        times = psutil.cpu_times()
        idle = times.idle + getattr(times, "iowait", 0.0)
        samples.busy_s.append(sum(times[:8]) - idle)
        await asyncio.sleep(INTERVAL_S)


def _look(pids: Iterable[int]) -> Look:
    cpu_s: dict[int, float] = {}
    own = shared_most = 0
    for process in _families(pids):
        with contextlib.suppress(psutil.Error):
            times, memory = process.cpu_times(), process.memory_info()
            cpu_s[process.pid] = times.user + times.system
            # Forked processes share pages: those count once.
            shared = int(getattr(memory, "shared", 0))
            own += memory.rss - shared
            shared_most = max(shared_most, shared)
    return Look(cpu_s, own + shared_most)


def _families(pids: Iterable[int]) -> Iterable[psutil.Process]:
    for pid in pids:
        with contextlib.suppress(psutil.Error):
            root = psutil.Process(pid)
            yield root
            yield from root.children(recursive=True)


@dataclass(frozen=True, slots=True)
class Measured:
    """A stretch of time. ``share`` is the generator's part of what it and the platform used, ``busy`` that of the cores
    in use, both 0 to 1; ``others`` are the cores that other programs used."""

    components: dict[str, Use]
    generator: Use | None
    share: float
    busy: float
    others: float


def measured(samples: Samples, start_s: float, end_s: float, cores: int) -> Measured:
    """What was used between two times of ``time.monotonic``."""
    components, busy = samples.between(start_s, end_s, cores)
    generator = components.pop(GENERATOR, None)
    known = sum(use.cpu for use in components.values()) + (generator.cpu if generator else 0.0)
    share = generator.cpu / known if generator and known else 0.0
    others = max(0.0, busy * cores - known) if components else 0.0
    return Measured(components, generator, round(share, 3), round(busy, 3), round(others, 2))
