"""Anything, at any time: hands that kill and suspend whatever they reach, more than one part at once.

The rows of the table in docs/guarantees.md are faults that somebody thought of, one after the other. Here a seed
decides, and parts fail while others are coming back.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence

from tests.faults.harness import FaultRun

_DOWN_MAX_S = 3.0
_SUSPENDED_MAX_S = 5.0
_REST_MAX_S = 1.0
# A part that was brought back gets this long to be used before it may fail again: what never works tests nothing.
_BREATH_BIDS = 5
_BREATH_MAX_S = 20.0


class Nemesis:
    """Several hands over the same parts; a part is in one hand at a time, so that each is known to be up again after.

    Args:
        victims: names of processes of the run's stack.
        hands: how many parts fail at once at most, below the number of victims.
    """

    def __init__(self, run: FaultRun, victims: Sequence[str], *, hands: int) -> None:
        if not 0 < hands < len(victims):
            raise ValueError(f"{hands} hands cannot share {len(victims)} victims")
        self._run = run
        self._free = list(victims)
        self._hands = hands

    async def strike(self, times: int) -> None:
        """Each hand strikes so often; returns when every part is up again."""
        seeds = [self._run.some(0, 1_000_000) for _ in range(self._hands)]
        async with asyncio.TaskGroup() as group:
            for seed in seeds:
                group.create_task(self._hand(random.Random(seed), times))

    async def _hand(self, chance: random.Random, times: int) -> None:
        for _ in range(times):
            # Sorted, so that the choice depends on who is free and not on who came back first.
            victim = chance.choice(sorted(self._free))
            self._free.remove(victim)
            # No "finally": a part that does not come back ends the whole run.
            if chance.random() < 0.6:
                await self._kill(victim, chance.uniform(0, _DOWN_MAX_S))
            else:
                await self._suspend(victim, chance.uniform(0.2, _SUSPENDED_MAX_S))
            self._free.append(victim)
            await self._breathe()
            await asyncio.sleep(chance.uniform(0, _REST_MAX_S))

    async def _kill(self, victim: str, down_s: float) -> None:
        await self._run.kill(victim)
        await asyncio.sleep(down_s)
        await self._run.start(victim)

    async def _suspend(self, victim: str, for_s: float) -> None:
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
