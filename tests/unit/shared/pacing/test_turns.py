"""Work in steps: nobody is passed over, and each turn of the loop ends."""

from __future__ import annotations

import asyncio

import pytest

from shared.pacing.turns import OneByOne, Step, Turns


class Work:
    """So many steps, each of which takes a second by the clock of the test."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self.done: list[str] = []

    def of(self, name: str, steps: int) -> Step:
        left = steps

        def step() -> bool:
            nonlocal left
            left -= 1
            self.now_s += 1
            self.done.append(name)
            return left > 0

        return step


async def test_what_fits_into_a_turn_is_done_at_once_and_the_rest_by_and_by() -> None:
    work = Work()
    turns = Turns(2.5, clock=lambda: work.now_s)
    turns.begin(work.of("a", 3))
    turns.begin(work.of("b", 2))
    turns.begin(work.of("c", 1))
    # "b" could begin, but "a" waits already.
    assert work.done == ["a"]
    assert len(turns) == 3
    await asyncio.sleep(0)
    assert work.done == ["a", "a", "b", "c"]
    await asyncio.sleep(0)
    assert work.done == ["a", "a", "b", "c", "a", "b"]
    assert len(turns) == 0


async def test_a_turn_that_is_used_up_leaves_what_comes_then_to_the_next() -> None:
    work = Work()
    turns = Turns(0.5, clock=lambda: work.now_s)
    for name in "abc":
        turns.begin(work.of(name, 1))
    assert work.done == ["a"]
    await asyncio.sleep(0)
    assert work.done == ["a", "b"]
    await asyncio.sleep(0)
    assert work.done == ["a", "b", "c"]
    # The next one finds a new turn.
    await asyncio.sleep(0)
    turns.begin(work.of("d", 1))
    assert work.done == ["a", "b", "c", "d"]


async def test_a_step_that_fails_is_dropped_and_the_others_go_on(caplog: pytest.LogCaptureFixture) -> None:
    def fails() -> bool:
        raise ValueError("no")

    work = Work()
    turns = Turns(0.5, clock=lambda: work.now_s)
    turns.begin(work.of("a", 2))
    turns.begin(fails)
    for _ in range(4):
        await asyncio.sleep(0)
    assert work.done == ["a", "a"]
    assert len(turns) == 0
    assert "a step failed" in caplog.text


async def test_of_many_that_may_go_on_one_does_in_each_turn() -> None:
    one_by_one = OneByOne()
    went: list[int] = []

    async def go(number: int) -> None:
        await one_by_one.turn()
        went.append(number)

    going = [asyncio.create_task(go(number)) for number in range(20)]
    going[3].cancel()
    most, seen = 0, 0
    while not all(task.done() for task in going):
        await asyncio.sleep(0)
        most, seen = max(most, len(went) - seen), len(went)
    assert went == [number for number in range(20) if number != 3]
    assert most == 1
    # Later ones have it at once.
    async with asyncio.timeout(30):
        await one_by_one.turn()
