"""Anything, at any time: hands that kill, suspend and cut off whatever they reach, more than one part at once.

The rows of the table in docs/guarantees.md are faults that somebody thought of, one after the other. Here a seed
decides, and parts fail while others are coming back.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Sequence
from typing import Protocol

from tests.faults.rig.harness import FaultRun

_DOWN_MAX_S = 3.0
_SUSPENDED_MAX_S = 5.0
# Longer than a lease (6 s), and than what a gateway or the archiver waits for an answer.
_LONG_S = (6.5, 12.0)
_LONG = 0.25
_REST_MAX_S = 1.0
# A part that was brought back gets this long to be used before it may fail again: what never works tests nothing.
_BREATH_BIDS = 5
_BREATH_MAX_S = 20.0


class Fault(Protocol):
    """Something that can be done to the platform and undone again, such as a partition between two parts.

    ``name`` is that of the fault in the timeline; :meth:`heal` is called once after each :meth:`inject`, also when the
    run fails.
    """

    name: str

    async def inject(self, chance: random.Random) -> None: ...

    async def heal(self) -> None: ...


class Nemesis:
    """Several hands over the same parts; a part is in one hand at a time, so that each is known to be up again after.

    Args:
        victims: names of processes of the run's stack.
        hands: how many parts fail at once at most, below the number of victims and faults.
        faults: what else may be done, each by one hand at a time.
        long: how likely it is that a part is suspended, or a fault lasts, for longer than a lease.
    """

    def __init__(
        self, run: FaultRun, victims: Sequence[str], *, hands: int, faults: Sequence[Fault] = (), long: float = _LONG
    ) -> None:
        if not 0 < hands < len(victims) + len(faults):
            raise ValueError(f"{hands} hands cannot share {len(victims)} victims and {len(faults)} faults")
        self._run = run
        self._faults = {fault.name: fault for fault in faults}
        self._free = [*victims, *self._faults]
        self._hands = hands
        self._long = long
        self.struck: Counter[str] = Counter()
        """How often what was done."""

    async def strike(self, times: int) -> None:
        """Each hand strikes so often; returns when every part is up again."""
        await self._strike(times, None)

    async def strike_for(self, seconds: float) -> None:
        """Each hand strikes again and again; returns when so long has passed and every part is up again."""
        await self._strike(None, time.monotonic() + seconds)

    async def _strike(self, times: int | None, until_s: float | None) -> None:
        seeds = [self._run.some(0, 1_000_000) for _ in range(self._hands)]
        async with asyncio.TaskGroup() as group:
            for seed in seeds:
                group.create_task(self._hand(random.Random(seed), times, until_s))

    async def _hand(self, chance: random.Random, times: int | None, until_s: float | None) -> None:
        strikes = 0
        while (times is None or strikes < times) and (until_s is None or time.monotonic() < until_s):
            strikes += 1
            # Sorted, so that the choice depends on who is free and not on who came back first.
            victim = chance.choice(sorted(self._free))
            self._free.remove(victim)
            # No "finally": a part that does not come back ends the whole run.
            if victim in self._faults:
                await self._do(self._faults[victim], chance)
            elif chance.random() < 0.6:
                await self._kill(victim, chance.uniform(0, _DOWN_MAX_S))
            else:
                await self._suspend(victim, self._lasting(chance))
            self._free.append(victim)
            await self._breathe()
            await asyncio.sleep(chance.uniform(0, _REST_MAX_S))

    def _lasting(self, chance: random.Random) -> float:
        """How long, in seconds."""
        return chance.uniform(*_LONG_S) if chance.random() < self._long else chance.uniform(0.2, _SUSPENDED_MAX_S)

    async def _do(self, fault: Fault, chance: random.Random) -> None:
        self.struck[fault.name] += 1
        self._run.fault(fault.name)
        try:
            await fault.inject(chance)
            await asyncio.sleep(self._lasting(chance))
        finally:
            await fault.heal()
            self._run.note(f"{fault.name} is over")

    async def _kill(self, victim: str, down_s: float) -> None:
        self.struck[f"kill {victim}"] += 1
        await self._run.kill(victim)
        await asyncio.sleep(down_s)
        await self._run.start(victim)

    async def _suspend(self, victim: str, for_s: float) -> None:
        self.struck[f"suspend {victim}" + (" for longer than a lease" if for_s >= _LONG_S[0] else "")] += 1
        self._run.suspend(victim)
        try:
            await asyncio.sleep(for_s)
        finally:
            self._run.resume(victim)

    async def _breathe(self) -> None:
        """Let a few bids through, unless another hand holds what they need."""
        try:
            await self._run.bidders.more(_BREATH_BIDS, within_s=_BREATH_MAX_S)
        except TimeoutError:
            self._run.note(f"no bid went through within {_BREATH_MAX_S:.0f} s")
