"""Many small jobs, a few at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


async def map_bounded(work: Callable[[T], Awaitable[R]], inputs: Iterable[T], *, at_once: int) -> list[R]:
    """``work`` for every input, at most ``at_once`` at a time; the results in the order of the inputs.

    The first error ends the jobs that are under way and is raised as it is, not in a group.
    """
    waiting = list(enumerate(inputs))
    waiting.reverse()
    results: dict[int, R] = {}

    async def worker() -> None:
        while waiting:
            number, value = waiting.pop()
            results[number] = await work(value)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(at_once, len(waiting))):
                group.create_task(worker())
    except BaseExceptionGroup as errors:
        raise _innermost(errors) from None
    return [results[number] for number in sorted(results)]


def _innermost(error: BaseException) -> BaseException:
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
