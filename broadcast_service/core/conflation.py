"""The viewers of one item who get at most so many frames a second, and what waits for them. Pure.

Bids are shown as they come while they come slowly. Faster ones wait for the next slot and go out as one ``state``:
the newest state, and how many bids it stands for. What is not a bid or an extension never waits, and what waited goes
out before it.

A newcomer is not held up for what waits: its snapshot has it already. So until the next slot the newcomers stand apart,
by how much of what waits they have seen, and each of these groups is told only of the rest.
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
"""Events that go out together as they are where there is a slot: a bid, the automatic one that answers it, and the
later end that they cause."""


@dataclass(slots=True)
class _Late(Generic[ViewerT]):
    """Viewers that came when so many events, and so many bids among them, were waiting already."""

    events: int
    bids: int
    viewers: dict[ViewerT, None]


class Conflated(Generic[ViewerT]):
    """Methods return what to send; a returned collection of viewers may be this object's own."""

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
        """All viewers."""
        if not self._late:
            return self._viewers
        return [*self._viewers, *(viewer for late in self._late.values() for viewer in late.viewers)]

    def add(self, viewers: Iterable[ViewerT]) -> None:
        """Viewers who know everything up to now, also what waits."""
        if self._newest is None:
            self._viewers.update(dict.fromkeys(viewers))
            return
        late = self._late.get(self._events)
        if late is None:
            late = self._late[self._events] = _Late(self._events, self._bids, {})
        late.viewers.update(dict.fromkeys(viewers))

    def discard(self, viewer: ViewerT) -> None:
        """The viewer is gone; no harm where it never was here."""
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
        """New frames about the item, in order: what of them, and of what waited, is to be sent now."""
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
        """What waits, if it is time."""
        return self.release(now_s) if self._pace.is_free(now_s) else []

    def release(self, now_s: float) -> list[Send[ViewerT]]:
        """What waits, now."""
        return [] if self._newest is None else self._release(now_s)

    # -------------------------------------------------------------------------------------------------- inside

    def _release(self, now_s: float, before: Frame | None = None) -> list[Send[ViewerT]]:
        """What waits, and after it ``before``, which does not wait. A snapshot stands for all that waits."""
        if before is not None and before.kind is FrameKind.SNAPSHOT:
            sends = [Send((before,), self.everybody())]
            self._pace.take(now_s, 1)
        else:
            tail = () if before is None else (before,)
            sends = []
            # Copied where others join below.
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
        """What waits, for viewers who know so much of it."""
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
            ),
        )

    def _forget(self) -> None:
        """Nothing waits any more, and all viewers are at the same place."""
        for late in self._late.values():
            self._viewers |= late.viewers
        self._late.clear()
        self._newest = None
        self._events = self._bids = 0


def _may_wait(frame: Frame) -> bool:
    return isinstance(frame.event, BidAccepted | AuctionExtended)
