"""Shards that failed alone: each rests for a pause of its own, and the relay of the others goes on.

No network here; the clock is given.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Mapping

from shared.pacing.backoff import Backoff


class RestingShards:
    """The shards that failed last time, at most as many as there are shards."""

    def __init__(self, *, first_s: float, most_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        """
        Args:
            first_s: the pause after a first failure; it doubles with each further one.
            most_s: the longest pause.
        """
        self._first_s = first_s
        self._most_s = most_s
        self._clock = clock
        self._pauses: dict[str, Backoff] = {}
        self._until_s: dict[str, float] = {}
        self._errors: dict[str, Exception] = {}

    @property
    def text(self) -> str | None:
        """What is wrong with those that have not succeeded since, whether their pause is over or not; None where there
        are none."""
        return _text_of(self._errors)

    def failed(self, errors: Mapping[str, Exception]) -> str | None:
        """Let these shards rest. Returns what is wrong with those that had not failed before; None where all had."""
        now_s = self._clock()
        told = _text_of({shard: error for shard, error in errors.items() if shard not in self._errors})
        for shard, error in errors.items():
            self._errors[shard] = error
            pause = self._pauses.setdefault(shard, Backoff(first_s=self._first_s, most_s=self._most_s))
            self._until_s[shard] = now_s + pause.failed()
        return told

    def succeeded(self, shards: Collection[str]) -> None:
        """These shards need no rest any more: they did what was asked of them, or are no longer ours."""
        for shard in [shard for shard in shards if shard in self._until_s]:
            del self._until_s[shard], self._pauses[shard], self._errors[shard]

    def keep(self, shards: Collection[str]) -> None:
        """Forget all but these."""
        self.succeeded([shard for shard in self._until_s if shard not in shards])

    def is_resting(self, shard: str) -> bool:
        """Whether its pause is not over yet."""
        return bool(self._until_s) and self._until_s.get(shard, 0.0) > self._clock()


def _text_of(errors: Mapping[str, Exception]) -> str | None:
    if not errors:
        return None
    shard, error = next(iter(errors.items()))
    others = f"; {len(errors) - 1} more fail, too" if len(errors) > 1 else ""
    return f"shard {shard}: {type(error).__name__}: {error}{others}"
