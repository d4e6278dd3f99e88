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

from shared.backoff import Backoff

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
        asyncio.create_task(_supervised(each, name, keeps_state=keeps_state), name=name) for name, each in work.items()
    ]
    try:
        yield
    finally:
        for task in reversed(tasks):
            task.cancel()
        _, running = await asyncio.wait(tasks, timeout=STOP_S)
        for task in running:
            logger.warning("%s did not end within %g s", task.get_name(), STOP_S)


async def _supervised(work: Work, name: str, *, keeps_state: bool) -> None:
    backoff = Backoff(first_s=_PAUSE_FIRST_S, most_s=_PAUSE_MOST_S)
    loop = asyncio.get_running_loop()
    while True:
        began_s = loop.time()
        try:
            await work()
            logger.critical("%s ended, which it must not", name)
        except Exception:
            logger.critical("%s failed", name, exc_info=True)
        if keeps_state:
            signal.raise_signal(signal.SIGTERM)
            return
        if loop.time() - began_s > _SOUND_AFTER_S:
            backoff.succeeded()
        pause_s = backoff.failed()
        logger.critical("%s begins anew in %.1f s", name, pause_s)
        await asyncio.sleep(pause_s)
