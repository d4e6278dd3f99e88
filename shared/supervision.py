"""The one policy for tasks that run as long as a service does.

Each of them survives outages of its servers by itself. So a task that fails has a defect, which is logged as critical.
What follows depends on what the task keeps in memory:

- *nothing between two rounds*: it starts again after a growing pause. The service's other work goes on, bids above all.
- *state that others rely on*, such as who waits for what: half of a change may be done, and nobody would notice. The
  process ends in good order, by SIGTERM to itself, and its supervisor starts another one.
"""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

from shared.pacing.backoff import Backoff

logger = logging.getLogger(__name__)

Work = Callable[[], Coroutine[Any, Any, None]]

STOP_S: Final = 5.0
_PAUSE_FIRST_S: Final = 1.0
_PAUSE_MOST_S: Final = 30.0
_SOUND_AFTER_S: Final = 60.0


@asynccontextmanager
async def in_background(work: Mapping[str, Work], *, keeps_state: bool) -> AsyncIterator[None]:
    """Run all of ``work`` while inside; at the end cancel it in reverse, and wait for it, at most ``STOP_S`` seconds.

    Args:
        work: by name. Each ends only when it is cancelled.
        keeps_state: which of the two rules above holds.
    """
    tasks = [
        asyncio.create_task(supervised(each, name, keeps_state=keeps_state), name=name) for name, each in work.items()
    ]
    try:
        yield
    finally:
        for task in reversed(tasks):
            task.cancel()
        _, running = await asyncio.wait(tasks, timeout=STOP_S)
        for task in running:
            logger.warning("%s did not end within %g s", task.get_name(), STOP_S)


async def supervised(work: Work, name: str, *, keeps_state: bool, may_end: Callable[[], bool] = lambda: False) -> None:
    """Run ``work`` until this is cancelled, or until it ends when it may; any other end is a defect.

    Args:
        keeps_state: which of the two rules above holds.
        may_end: says whether the work was asked to end by something other than a cancellation.
    """
    backoff = Backoff(first_s=_PAUSE_FIRST_S, most_s=_PAUSE_MOST_S)
    loop = asyncio.get_running_loop()
    while True:
        began_s = loop.time()
        try:
            await work()
            heed_cancellation()
            if may_end():
                return
            logger.critical("%s ended, which it must not", name)
        except asyncio.CancelledError:
            heed_cancellation()
            logger.critical("%s was cancelled, and nobody has asked for it", name, exc_info=True)
        except Exception:
            if _is_asked_to_end():
                logger.warning("%s: cleaning up failed", name, exc_info=True)
                heed_cancellation()
            logger.critical("%s failed", name, exc_info=True)
        if keeps_state:
            signal.raise_signal(signal.SIGTERM)
            return
        if loop.time() - began_s > _SOUND_AFTER_S:
            backoff.succeeded()
        pause_s = backoff.failed()
        logger.critical("%s begins anew in %.1f s", name, pause_s)
        await asyncio.sleep(pause_s)


def _is_asked_to_end() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def heed_cancellation() -> None:
    """End the present task if somebody has asked for it. Code that catches errors and goes on calls this first:

    1. A task waits for something, and is cancelled.
    2. Its cleaning up, in a ``finally``, fails because a server is away.
    3. That error takes the place of the cancellation. The task goes on, and nobody cancels it again.

    Raises:
        asyncio.CancelledError: the task was cancelled.
    """
    if _is_asked_to_end():
        raise asyncio.CancelledError


class UnaskedCancellation(Exception):
    """Something for which a task waited was cancelled, and the task was not."""


async def loudly(work: Work) -> None:
    """Await ``work``, for a task of a group. The group would take such a cancellation for an orderly end.

    Raises:
        UnaskedCancellation: there was one.
    """
    try:
        await work()
    except asyncio.CancelledError as error:
        heed_cancellation()
        raise UnaskedCancellation from error
