"""Doing something with every connection every few seconds, evenly spread: one task instead of a timer for each."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence
from typing import Final, Generic, TypeVar

MemberT = TypeVar("MemberT")

STEPS: Final = 50
"""Into how many slices a period is cut: of 10,000 connections 200 are visited at once, which takes about a
millisecond."""


class Rounds(Generic[MemberT]):
    """Who is visited in which step. Pure.

    Whoever is there when a round begins is visited once in it, in the order of ``members``; who comes later waits for
    the next round. So, where the order is that of arrival, nobody waits longer than two rounds for the first visit, or
    longer than one and a step for another one.
    """

    def __init__(self, members: Callable[[], Iterable[MemberT]], *, steps: int = STEPS) -> None:
        self._members = members
        self._steps = steps
        self._at = 0
        self._round: Sequence[MemberT] = ()

    def step(self) -> Sequence[MemberT]:
        """The next slice. Members may be gone since the round began."""
        if self._at == 0:
            self._round = tuple(self._members())
        first = self._at * len(self._round) // self._steps
        self._at += 1
        last = self._at * len(self._round) // self._steps
        due = self._round[first:last]
        if self._at == self._steps:
            # Nobody is kept in memory by having been here once.
            self._at, self._round = 0, ()
        return due


async def visit(rounds: Rounds[MemberT], period_s: float, care: Callable[[Sequence[MemberT]], None]) -> None:
    """Give ``care`` a slice of everybody again and again, one round per ``period_s``, until cancelled."""
    loop = asyncio.get_running_loop()
    due_s = loop.time()
    while True:
        # Counted from when it was due, not from now, unless the process stood still.
        due_s = max(due_s + period_s / STEPS, loop.time() - period_s)
        await asyncio.sleep(due_s - loop.time())
        if members := rounds.step():
            care(members)
