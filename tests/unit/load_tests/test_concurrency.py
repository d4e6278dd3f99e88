"""Bounded concurrency keeps its bound, its order and its errors."""

from __future__ import annotations

import asyncio

import pytest

from load_tests.concurrency import map_bounded


async def test_results_in_order_and_never_more_than_the_bound_at_once() -> None:
    running = peak = 0

    async def square(number: int) -> int:
        nonlocal running, peak
        running += 1
        peak = max(peak, running)
        for _ in range(number % 3):
            await asyncio.sleep(0)
        running -= 1
        return number * number

    assert await map_bounded(square, range(20), at_once=4) == [number * number for number in range(20)]
    assert peak == 4


async def test_nothing_to_do() -> None:
    async def never(_: int) -> int:
        raise AssertionError

    assert await map_bounded(never, [], at_once=4) == []


async def test_the_first_error_is_raised_as_it_is_and_ends_the_others() -> None:
    cancelled = asyncio.Event()

    async def work(number: int) -> None:
        if number == 1:
            raise ValueError("one")
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            cancelled.set()
            raise

    with pytest.raises(ValueError, match="one"):
        await map_bounded(work, range(5), at_once=2)
    assert cancelled.is_set()
