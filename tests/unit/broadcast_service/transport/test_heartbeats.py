"""Rounds over all connections: each once, evenly spread."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from broadcast_service.transport.heartbeats import STEPS, Rounds, visit


@pytest.mark.parametrize("count", [0, 1, 3, 10, 99, 1_000])
def test_a_round_visits_everybody_once_in_order_and_evenly(count: int) -> None:
    members = list(range(count))
    rounds = Rounds(lambda: members, steps=10)
    for _ in range(3):
        slices = [rounds.step() for _ in range(10)]
        assert [member for each in slices for member in each] == members
        assert max(map(len, slices)) - min(map(len, slices)) <= 1


def test_who_comes_during_a_round_is_visited_in_the_next_one() -> None:
    members = ["a"]
    rounds = Rounds(lambda: members, steps=2)
    first = [rounds.step()]
    members.append("b")
    first.append(rounds.step())
    assert [*first[0], *first[1]] == ["a"]
    assert [*rounds.step(), *rounds.step()] == ["a", "b"]


def test_nobody_is_kept_by_a_round_that_is_over() -> None:
    members = ["a"]
    rounds = Rounds(lambda: members, steps=1)
    rounds.step()
    members.clear()
    assert list(rounds.step()) == []


async def test_visits_go_on_until_cancelled() -> None:
    seen: list[int] = []
    twice = asyncio.Event()

    def care(members: Sequence[int]) -> None:
        seen.extend(members)
        if len(seen) >= 2 * STEPS:
            twice.set()

    task = asyncio.create_task(visit(Rounds(lambda: range(STEPS)), 0.05, care))
    async with asyncio.timeout(10):
        await twice.wait()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert seen[: 2 * STEPS] == [*range(STEPS), *range(STEPS)]


async def test_while_there_is_nobody_it_wakes_once_a_period_and_whoever_comes_is_visited_in_the_next() -> None:
    members: list[str] = []
    began_s: list[float] = []
    visited = asyncio.Event()

    class Counted(Rounds[str]):
        def step(self) -> Sequence[str]:
            began_s.append(asyncio.get_running_loop().time())
            if len(began_s) == 4:
                members.append("a")
            return super().step()

    def care(seen: Sequence[str]) -> None:
        assert list(seen) == ["a"]
        visited.set()

    task = asyncio.create_task(visit(Counted(lambda: members), 0.1, care))
    async with asyncio.timeout(10):
        await visited.wait()
    waited_s = asyncio.get_running_loop().time() - began_s[3]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert began_s[3] - began_s[0] > 0.25, "three periods"
    assert waited_s < 2, "one period, and not one for each step without anybody"
    assert len(began_s) == 3 + STEPS, "of a round it is the last step that visits a single member"
