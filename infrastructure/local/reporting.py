"""How the stack reports what it is doing. The stack calls a Reporter; the terminal's is in `terminal.py`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Reporter:
    """Receives progress. This one keeps silent; tests and benches use it."""

    def step_started(self, label: str) -> None:
        """A step has begun; several may be under way at once."""

    def step_done(self, label: str, seconds: float, note: str) -> None:
        """The step ended well after so many seconds; `note` says where to find it, or is empty."""

    def step_failed(self, label: str, seconds: float) -> None:
        """The step failed with an error, which is raised as well."""

    def notice(self, text: str) -> None:
        """Something that the user should know: a restart, a leftover that was ended."""

    @contextmanager
    def step(self, label: str, note: str = "") -> Iterator[None]:
        """Report a step around a block of code, with the time it took."""
        started = time.monotonic()
        self.step_started(label)
        try:
            yield
        except BaseException:
            self.step_failed(label, time.monotonic() - started)
            raise
        self.step_done(label, time.monotonic() - started, note)
