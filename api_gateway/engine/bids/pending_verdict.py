"""The verdict that a bid waits for.

A future would do, but it tells each waiter by a call of the loop, with a handle and a context of its own. That is a
microsecond of the twenty that a bid costs. Here all bids of a flush are told in one turn.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Generator, Iterable
from typing import Any

logger = logging.getLogger(__name__)


class PendingVerdict:
    """One line of the script, or the error that answers the bid. It is settled once.

    ``add_done_callback`` and ``await`` are as those of a future. To cancel who awaits it does not touch it.
    """

    __slots__ = ("_error", "_is_told", "_line", "_told")

    def __init__(self) -> None:
        self._line: bytes | None = None
        self._error: Exception | None = None
        self._is_told = False
        self._told: tuple[Callable[[PendingVerdict], None], ...] = ()

    def done(self) -> bool:
        """Whether it is settled."""
        return self._line is not None or self._error is not None

    def settle(self, line: bytes) -> None:
        """Settle it with this line. :func:`tell_all` then tells those who wait."""
        assert not self.done(), "a bid has one verdict"
        self._line = line

    def set_result(self, line: bytes) -> None:
        """Settle it with this line, and tell everybody who waits."""
        self.settle(line)
        self.tell()

    def set_exception(self, error: Exception) -> None:
        """Settle it with this error, and tell everybody who waits."""
        assert not self.done(), "a bid has one verdict"
        self._error = error
        self.tell()

    def exception(self) -> Exception | None:
        """The error in place of a verdict; None where there is a verdict."""
        return self._error

    def result(self) -> bytes:
        """The line. Raises the error, where it is settled with one."""
        if self._line is not None:
            return self._line
        if self._error is None:
            raise asyncio.InvalidStateError("the verdict is still pending")
        # All bids of a flush may share the error. Raised again and again it would gather the frames of all of them, and
        # keep what these hold.
        raise self._error.with_traceback(None)

    def add_done_callback(self, told: Callable[[PendingVerdict], None]) -> None:
        """``told`` is called with it when it is settled, in the order in which they were added; at once, if it is."""
        if self._is_told:
            self._call(told)
        else:
            self._told += (told,)

    def tell(self) -> None:
        """Tell everybody who waits."""
        waiting, self._told, self._is_told = self._told, (), True
        for told in waiting:
            self._call(told)

    def _call(self, told: Callable[[PendingVerdict], None]) -> None:
        try:
            told(self)
        except Exception:  # of one bid; the others of its flush must be told too
            logger.exception("bids: a verdict could not be told")

    def __await__(self) -> Generator[Any, None, bytes]:
        if not self.done():
            woken = asyncio.get_running_loop().create_future()
            self.add_done_callback(lambda _: None if woken.done() else woken.set_result(None))
            yield from woken
        return self.result()


def tell_all(settled: Iterable[PendingVerdict]) -> None:
    """Tell everybody who waits for these."""
    for verdict in settled:
        verdict.tell()
