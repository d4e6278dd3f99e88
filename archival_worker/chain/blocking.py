"""Runs calls that block, on a disk or S3, and may never return."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from archival_worker.errors import ExportFailed

P = ParamSpec("P")
T = TypeVar("T")


class BlockingCalls:
    """One call at a time, each in a thread of its own.

    A call cannot be interrupted. Whoever waits for it may be cancelled; the call goes on, and until it returns there is
    no other one, so a disk that hangs keeps one thread. In the event loop's threads it would keep one more with each
    attempt, until none is left for looking up the names of servers; and the process could not end.
    """

    def __init__(self) -> None:
        self._is_running = False
        self._afterwards: list[Callable[[], None]] = []

    @property
    def is_running(self) -> bool:
        """Whether a call has not returned yet."""
        return self._is_running

    async def run(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """What ``work`` returns.

        Raises:
            ExportFailed: a former call has not returned yet; or what ``work`` raises itself.
        """
        if self._is_running:
            raise ExportFailed("a former call to the disk or to S3 has not returned yet")
        answer: asyncio.Future[T] = asyncio.get_running_loop().create_future()

        def returned(result: T | None, error: BaseException | None) -> None:
            if answer.done():
                return  # nobody waits for it any more
            if error is None:
                answer.set_result(result)  # type: ignore[arg-type]
            else:
                answer.set_exception(error)

        self._start(lambda: work(*args, **kwargs), returned)
        return await answer

    def run_afterwards(self, work: Callable[[], None]) -> None:
        """Run ``work``, which must not raise, when the call that is running has returned. Nobody waits for it, and no
        other call begins before it has returned, too."""
        self._afterwards.append(work)
        if not self._is_running:
            self._go_on()

    def _go_on(self) -> None:
        if self._afterwards:
            self._start(self._afterwards.pop(0), lambda result, error: None)

    def _start(self, work: Callable[[], T], returned: Callable[[T | None, BaseException | None], None]) -> None:
        loop = asyncio.get_running_loop()

        def has_returned(result: T | None, error: BaseException | None) -> None:
            self._is_running = False
            returned(result, error)
            self._go_on()

        def call() -> None:
            result, error = None, None
            try:
                result = work()
            except BaseException as raised:
                error = raised
            # The loop may be closed: then nobody waits.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(has_returned, result, error)

        self._is_running = True
        try:
            threading.Thread(target=call, name="export", daemon=True).start()
        except BaseException:
            self._is_running = False
            raise
