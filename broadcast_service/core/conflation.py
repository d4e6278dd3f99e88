"""The viewers of one item who get a limited number of frames per second. Pure.

While bids are slow, each is sent at once. Faster bids wait for the next slot and go out as one ``state`` frame: the
newest state, and how many bids it stands for. Only bids and extensions wait; before any other event is sent, the
waiting ones go out.

A viewer who joins while events wait has them in its snapshot already. Until the next slot such viewers are kept in
groups, by the number of waiting events that they have seen, and each group is told only of the rest.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Final, Generic

from broadcast_service.core.effects import Send, ViewerT
from broadcast_service.core.frames import Frame, FrameKind, state_frame
from broadcast_service.core.pace import Pace
from shared.messages import AuctionExtended, BidAccepted

GROUP_MAX: Final = 3
"""Events that may go out unconflated in one slot: a bid, the automatic bid that answers it, and the extension that they
cause."""


@dataclass(slots=True)
class _Late(Generic[ViewerT]):
    """Viewers who joined when ``events`` events, ``bids`` of them bids, were waiting already."""

    events: int
    bids: int
    viewers: dict[ViewerT, None]


class Conflated(Generic[ViewerT]):
    """Methods return what to send. A returned collection of viewers may be this object's own: do not keep it."""

    __slots__ = ("_bids", "_events", "_late", "_newest", "_pace", "_viewers")

    def __init__(self, pace: Pace) -> None:
        self._pace = pace
        # Dictionaries as ordered sets, as in the channel.
        self._viewers: dict[ViewerT, None] = {}
        # What waits: the newest frame, and how many events and bids it stands for.
        self._newest: Frame | None = None
        self._events = self._bids = 0
        self._late: dict[int, _Late[ViewerT]] = {}

    # ------------------------------------------------------------------------------------------------- viewers

    def __len__(self) -> int:
        return len(self._viewers) + sum(len(late.viewers) for late in self._late.values())

    def everybody(self) -> Collection[ViewerT]:
        if not self._late:
            return self._viewers
        return [*self._viewers, *(viewer for late in self._late.values() for viewer in late.viewers)]

    def add(self, viewers: Iterable[ViewerT]) -> None:
        """Add viewers who know everything up to now, including what waits."""
        if self._newest is None:
            self._viewers.update(dict.fromkeys(viewers))
            return
        late = self._late.get(self._events)
        if late is None:
            late = self._late[self._events] = _Late(self._events, self._bids, {})
        late.viewers.update(dict.fromkeys(viewers))

    def discard(self, viewer: ViewerT) -> None:
        """Remove the viewer, if it is here."""
        self._viewers.pop(viewer, None)
        for late in self._late.values():
            late.viewers.pop(viewer, None)
        if not len(self):
            self._forget()

    # -------------------------------------------------------------------------------------------------- frames

    @property
    def due_s(self) -> float | None:
        """When to call ``flush``; None while nothing waits."""
        return None if self._newest is None else self._pace.due_s

    def show(self, frames: tuple[Frame, ...], now_s: float) -> list[Send[ViewerT]]:
        """Take new frames, in order; returns what is to be sent now, of them and of what waited."""
        if not len(self):
            return []
        if not self._pace.is_limited:
            return [Send(frames, self._viewers)]
        is_free = self._pace.is_free(now_s)
        if is_free and self._newest is None and len(frames) <= GROUP_MAX and all(map(_may_wait, frames)):
            self._pace.take(now_s, len(frames))
            return [Send(frames, self._viewers)]
        sends: list[Send[ViewerT]] = []
        for frame in frames:
            if _may_wait(frame):
                self._newest = frame
                self._events += frame.events
                self._bids += frame.bids
            else:
                sends += self._release(now_s, before=frame)
        return sends + self.release(now_s) if is_free else sends

    def flush(self, now_s: float) -> list[Send[ViewerT]]:
        """Send what waits, if the next slot has come."""
        return self.release(now_s) if self._pace.is_free(now_s) else []

    def release(self, now_s: float) -> list[Send[ViewerT]]:
        """Send what waits, whether there is a slot or not."""
        return [] if self._newest is None else self._release(now_s)

    # -------------------------------------------------------------------------------------------------- inside

    def _release(self, now_s: float, before: Frame | None = None) -> list[Send[ViewerT]]:
        """Send what waits, then ``before``, which does not wait. A snapshot replaces all that waits."""
        if before is not None and before.kind is FrameKind.SNAPSHOT:
            sends = [Send((before,), self.everybody())]
            self._pace.take(now_s, 1)
        else:
            tail = () if before is None else (before,)
            sends = []
            # A copy where `_forget` adds the late viewers to the original.
            for viewers, events, bids in [
                (tuple(self._viewers) if self._late else self._viewers, 0, 0),
                *((late.viewers, late.events, late.bids) for late in self._late.values()),
            ]:
                frames = (*self._rest(events, bids), *tail)
                if frames and viewers:
                    sends.append(Send(frames, viewers))
            self._pace.take(now_s, (self._newest is not None) + len(tail))
        self._forget()
        return sends

    def _rest(self, events: int, bids: int) -> tuple[Frame, ...]:
        """What waits, without the ``events`` and ``bids`` that the viewers know already."""
        if self._newest is None or events == self._events:
            return ()
        if self._events - events == 1:
            return (self._newest,)
        assert self._newest.event is not None
        return (
            state_frame(
                self._newest.event,
                events=self._events - events,
                bids=self._bids - bids,
                extensions=self._newest.extensions,
                created_us=self._newest.created_us,
            ),
        )

    def _forget(self) -> None:
        """Nothing waits any more, so all viewers know the same."""
        for late in self._late.values():
            self._viewers |= late.viewers
        self._late.clear()
        self._newest = None
        self._events = self._bids = 0


def _may_wait(frame: Frame) -> bool:
    return isinstance(frame.event, BidAccepted | AuctionExtended)
