"""Decides whether to ask a peer: after a failure it is left alone for a while, so that not every get waits for its
silence."""

from __future__ import annotations

from shared.pacing.backoff import Backoff


class Breaker:
    """Open after a failure, for a pause that grows with each; then one attempt may tell whether the peer is back."""

    def __init__(self, *, first_s: float = 0.2, most_s: float = 2.0) -> None:
        self._backoff = Backoff(first_s=first_s, most_s=most_s)
        self._until_s = 0.0

    @property
    def is_closed(self) -> bool:
        """Whether the peer has not failed since it last answered: then :meth:`is_open` need not be asked."""
        return not self._backoff.failures

    def is_open(self, now_s: float) -> bool:
        """Whether the peer is to be left alone. When the pause is over, the first caller may try; the others still have
        to leave it alone, for another pause or until the attempt succeeded."""
        if not self._backoff.failures:
            return False
        if now_s < self._until_s:
            return True
        self._until_s = now_s + self._backoff.failed()
        return False

    def failed(self, now_s: float) -> None:
        """The peer did not answer."""
        if now_s >= self._until_s:
            self._until_s = now_s + self._backoff.failed()

    def succeeded(self) -> None:
        """The peer answered."""
        self._backoff.succeeded()
        self._until_s = 0.0
