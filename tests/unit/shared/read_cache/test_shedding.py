"""The gate before the origin."""

from __future__ import annotations

import asyncio

import pytest

from shared.read_cache.errors import OriginSilent, Overloaded
from shared.read_cache.groups.shedding import SILENT_S, Gate


class Origin:
    def __init__(self, gate: Gate) -> None:
        self.gate = gate
        self.inside: list[int] = []
        self.most = 0
        self.go_on = asyncio.Event()

    async def ask(self, number: int) -> int:
        async with self.gate.passed():
            self.inside.append(number)
            self.most = max(self.most, len(self.inside))
            await self.go_on.wait()
            self.inside.remove(number)
        return number


async def settle() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_so_many_at_a_time_and_so_many_that_wait() -> None:
    origin = Origin(Gate(running_max=2, waiting_max=3))
    tasks = [asyncio.create_task(origin.ask(number)) for number in range(7)]
    await settle()
    assert origin.inside == [0, 1]
    assert origin.gate.waiting == 3
    refused = [task for task in tasks if task.done()]
    assert refused == tasks[5:]
    for task in refused:
        with pytest.raises(Overloaded, match=r"2 questions .* 3 wait; try again in 1 s"):
            await task
    origin.go_on.set()
    assert await asyncio.gather(*tasks[:5]) == [0, 1, 2, 3, 4]
    assert (origin.most, origin.gate.waiting, origin.gate.shed) == (2, 0, 2)


async def test_the_order_is_that_of_arrival() -> None:
    origin = Origin(Gate(running_max=1, waiting_max=10))
    done: list[int] = []

    async def ask(number: int) -> None:
        done.append(await origin.ask(number))

    tasks = [asyncio.create_task(ask(number)) for number in range(6)]
    await settle()
    origin.go_on.set()
    await asyncio.gather(*tasks)
    assert done == list(range(6))


async def test_nobody_waits_longer_than_that() -> None:
    origin = Origin(Gate(running_max=1, waiting_max=10, wait_max_s=0.02))
    first = asyncio.create_task(origin.ask(0))
    await settle()
    with pytest.raises(Overloaded, match=r"busy with others for 0\.02 s"):
        await origin.ask(1)
    assert origin.gate.waiting == 0
    origin.go_on.set()
    assert await first == 0
    assert await origin.ask(2) == 2


async def test_whoever_is_cancelled_in_the_line_leaves_no_gap() -> None:
    origin = Origin(Gate(running_max=1, waiting_max=10))
    tasks = [asyncio.create_task(origin.ask(number)) for number in range(4)]
    await settle()
    tasks[1].cancel()
    tasks[0].cancel()
    await settle()
    assert origin.gate.waiting == 1
    origin.go_on.set()
    assert await asyncio.gather(*tasks[2:]) == [2, 3]
    assert await origin.ask(9) == 9


async def test_an_error_inside_opens_the_gate_again() -> None:
    gate = Gate(running_max=1, waiting_max=0)
    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            async with gate.passed():
                raise ZeroDivisionError


class Clock:
    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


async def refusal_of(gate: Gate) -> type[Overloaded]:
    with pytest.raises(Overloaded) as caught:
        async with gate.passed():
            pass
    return caught.type


async def test_an_origin_that_answers_nothing_is_not_only_busy() -> None:
    clock = Clock()
    gate = Gate(running_max=2, waiting_max=0, clock=clock)
    async with gate.passed(), gate.passed():
        clock.now_s += SILENT_S - 0.1
        assert await refusal_of(gate) is Overloaded
        clock.now_s += 0.1
        assert await refusal_of(gate) is OriginSilent
    async with gate.passed():
        clock.now_s += 9
        async with gate.passed():
            pass
        async with gate.passed():
            assert await refusal_of(gate) is Overloaded, "another question was just answered"


async def test_questions_that_fail_are_no_answers() -> None:
    clock = Clock()
    gate = Gate(running_max=1, waiting_max=9, wait_max_s=0.01, clock=clock)
    origin = Origin(gate)
    first = asyncio.create_task(origin.ask(0))
    await settle()
    second = asyncio.create_task(origin.ask(1))
    await settle()
    clock.now_s += SILENT_S / 2
    first.cancel()
    await settle()
    assert origin.inside[-1] == 1
    clock.now_s += SILENT_S / 2
    assert await refusal_of(gate) is OriginSilent
    origin.go_on.set()
    await second
    assert not gate.is_silent


async def test_failures_before_a_pause_say_nothing() -> None:
    clock = Clock()
    gate = Gate(running_max=1, waiting_max=0, clock=clock)
    with pytest.raises(ZeroDivisionError):
        async with gate.passed():
            raise ZeroDivisionError
    clock.now_s += 60
    async with gate.passed():
        assert await refusal_of(gate) is Overloaded
