"""A fault run that takes minutes of waiting, in a thread with an event loop of its own, beside all other tests."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any

from infrastructure.local.servers.ports import Ports

# Not where other stacks look for theirs: a server that is away for minutes leaves its port free for as long.
_PORTS = range(12_000, 20_000)
_STOP_S = 60.0


def ports_apart() -> Ports:
    """Ports that no other test takes, not even while their servers are away."""
    return Ports.free(_PORTS)


class Beside:
    """Runs a coroutine from :meth:`start` on, until it ends or :meth:`stop`."""

    def __init__(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._work = work
        self._outcome: Future[None] = Future()
        self._loop: asyncio.AbstractEventLoop
        self._has_begun = False
        self._task: asyncio.Task[None] | None = None
        # A daemon: a test session that cannot even clean up must not hang on it.
        self._thread = threading.Thread(target=self._run, name="beside", daemon=True)

    def start(self) -> None:
        """Begin, unless it has begun."""
        if self._has_begun:
            return
        self._has_begun = True
        self._loop = asyncio.new_event_loop()
        self._thread.start()

    async def outcome(self) -> None:
        """Wait for its end; raises what it raised."""
        await asyncio.wrap_future(self._outcome)

    def stop(self) -> None:
        """Cancel it where it runs, and wait until it has cleaned up."""
        if not self._thread.is_alive():
            return
        # The loop may be closed between the two lines; then there is nothing to cancel.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._cancel)
        self._thread.join(_STOP_S)

    def _cancel(self) -> None:
        if self._task is not None:
            self._task.cancel()

    def _run(self) -> None:
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(self._main())
        except BaseException as error:
            self._outcome.set_exception(error)
        else:
            self._outcome.set_result(None)

    async def _main(self) -> None:
        self._task = asyncio.create_task(self._work())
        await self._task
