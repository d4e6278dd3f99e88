"""What a node knows of the others, and what every provider of membership offers."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol

from typing_extensions import override

from shared.read_cache.membership.clock import now_s
from shared.read_cache.ring import Ring


@dataclass(frozen=True, slots=True)
class View:
    """A ring that this process may rely on at this moment.

    Attributes:
        epoch: the number of the ring, from 1; every peer call carries it. Of two rings that were agreed the later one
            has the higher number. Where nothing is agreed (static, Cloud Map) it is 1, and the ring's fingerprint,
            which every call carries too, tells rings apart.
        ring: who owns what.
        here: the name of this process' own node; None for one that only reads (a gateway, a front end).
    """

    epoch: int
    ring: Ring
    here: str | None


class Membership(Protocol):
    """A provider of membership. ``run`` works; everything else only looks."""

    def current(self) -> View | None:
        """The view, or None: serve without peers. Takes about a microsecond and is asked at every get. Two views are
        one object as long as they are equal and there was no lapse between them.

        None before the first view is there, and from the moment at which the view may be too old to rely on: the
        clock is looked at here, and not by a timer, so that a process that was suspended gets None at its first
        question.
        """

    @property
    def lapses(self) -> int:
        """How often a view that was relied on ended without a newer one. Whoever keeps values drops them when it grows:
        while nobody could reach this process, it may have missed that one of them became wrong."""

    def suspect(self, epoch: int) -> None:
        """A peer spoke of another ring: look again soon."""

    async def newest(self) -> View | None:
        """The view as it is agreed at this moment, asked of the service where the nodes agree on it, within a bounded
        time; where that fails, as :meth:`current`. For callers that must not miss a node that has joined meanwhile."""

    async def run(self) -> None:
        """Join where this process is a node, and stay in touch, until cancelled; leaves the ring then.

        Survives every outage by itself.
        """


class Reliance:
    """A view, and until when it may be relied on."""

    def __init__(self) -> None:
        self._view: View | None = None
        self._until_s = 0.0
        self.lapses = 0

    def current(self) -> View | None:
        """The view while it may be relied on."""
        view = self._view
        if view is not None and now_s() >= self._until_s:
            self.drop()
            return None
        return view

    def renew(self, view: View, until_s: float) -> None:
        """Rely on this view until then, on the clock of :func:`now_s`."""
        # The last view may have become too old without anybody asking since.
        before = self.current()
        # The same object stands for the same view that was relied on all the time, so that others see at a glance
        # whether something has happened.
        if before != view:
            self._view = replace(view) if before is None else view
        self._until_s = until_s

    def replace(self, view: View) -> None:
        """Take a newer view, which may be relied on for as long as the one before."""
        if self.current() not in (None, view):
            self._view = view

    def drop(self) -> None:
        """Rely on nothing."""
        if self._view is not None:
            self._view = None
            self.lapses += 1


class Relying(Membership):
    """What the providers have in common: they tell of the view that they rely on."""

    def __init__(self) -> None:
        self._reliance = Reliance()

    @override
    def current(self) -> View | None:
        return self._reliance.current()

    @property
    @override
    def lapses(self) -> int:
        return self._reliance.lapses
