"""An orderly end, however the run is ended."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Coroutine
from typing import Any


def run_until_stopped(work: Coroutine[Any, Any, bool]) -> bool:
    """``asyncio.run`` that also turns SIGTERM into an orderly end, so that nothing started here is left
    behind.

    Raises:
        KeyboardInterrupt: Ctrl-C or SIGTERM.
    """

    async def guarded() -> bool:
        task = asyncio.current_task()
        assert task is not None
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
        return await work

    try:
        return asyncio.run(guarded())
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
