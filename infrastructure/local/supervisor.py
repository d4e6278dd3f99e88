"""Restarts processes that end by themselves: one watcher per process, with growing pauses."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time

from infrastructure.local.errors import StackError
from infrastructure.local.processes import ManagedProcess, keep_short, poll_until
from infrastructure.local.stack import Stack

PAUSE_FIRST_S = 0.5
PAUSE_MAX_S = 30.0
# A process that has run this long was healthy: its next restart comes quickly again.
CALM_AFTER_S = 60.0
# Short beside the first pause.
_LOOK_S = 0.2
_LOGS_LOOK_S = 30.0


def next_pause_s(previous_s: float, lived_s: float) -> float:
    """How long to wait before a restart: twice as long each time, and short again if the process ran for a minute."""
    if lived_s >= CALM_AFTER_S or previous_s <= 0:
        return PAUSE_FIRST_S
    return min(previous_s * 2, PAUSE_MAX_S)


class Supervisor:
    """Watches all processes of a started stack: `async with Supervisor(stack): …`.

    While the block runs, a process that was killed or has crashed is started again; one that was stopped on purpose
    (`Stack.stop_process`) stays down.
    """

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._watchers: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Supervisor:
        self._watchers = [
            asyncio.create_task(self._watch(name, process), name=f"watch-{name}")
            for name, process in self._stack.processes.items()
        ]
        self._watchers.append(asyncio.create_task(self._keep_logs_short(), name="keep-logs-short"))
        return self

    async def __aexit__(self, *_: object) -> None:
        for watcher in self._watchers:
            watcher.cancel()
        for watcher in self._watchers:
            with contextlib.suppress(asyncio.CancelledError):
                await watcher

    async def _watch(self, name: str, process: ManagedProcess) -> None:
        pause_s = 0.0
        started = time.monotonic()
        while True:
            await poll_until(lambda: process.wanted and not process.is_running, math.inf, _LOOK_S)
            pause_s = next_pause_s(pause_s, time.monotonic() - started)
            self._stack.reporter.notice(f"{name} {process.exit_text}; starting it again in {pause_s:g} s")
            await asyncio.sleep(pause_s)
            process.restarts += 1
            started = time.monotonic()
            try:
                await self._stack.start_process(name)
            except (StackError, OSError) as error:
                # It is not ready, ended at once, or cannot write. If it has ended, the loop tries again, after a
                # longer pause.
                self._stack.reporter.notice(str(error))
            except Exception as error:
                # A defect of ours must not leave the process unwatched, and nobody would be told: the end of a watcher
                # is looked at only when all of them end.
                self._stack.reporter.notice(f"{name} could not be started: {type(error).__name__}: {error}")

    async def _keep_logs_short(self) -> None:
        """Keep the logs of a run of months from filling the disk."""
        while True:
            await asyncio.sleep(_LOGS_LOOK_S)
            for process in list(self._stack.processes.values()):
                # On a full disk there is no room for the copy; the log is then not the only problem.
                with contextlib.suppress(OSError):
                    await asyncio.to_thread(keep_short, process.spec.log)
