"""The queue of frames for one slow viewer. Pure; the clock is an argument.

Three stages bound the memory that a slow viewer costs, and it costs the others no time:

1. Up to ``frames_max`` frames wait in order.
2. More are conflated. Of each item there remain the newest snapshot, the newest state in place of all events after it,
   and the newest status of each topic.
3. A viewer that takes nothing for ``stalled_max_s``, or whose conflated frames exceed ``bytes_max``, is closed.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from broadcast_service.core.frames import Frame, FrameKind, state_frame


@dataclass(frozen=True, slots=True)
class OutgoingLimits:
    """``frames_max`` and ``bytes_max`` bound what waits; ``stalled_max_s``: how long a viewer may take none of it."""

    frames_max: int = 256
    bytes_max: int = 4 * 1024**2
    stalled_max_s: float = 15.0


@dataclass(slots=True)
class _Waiting:
    """A frame, and how many events and bids it stands for."""

    frame: Frame
    events: int
    bids: int

    def show(self) -> Frame:
        """The frame itself, or a ``state`` where it stands for further events."""
        frame = self.frame
        if self.events == frame.events:
            return frame
        assert frame.event is not None
        return state_frame(
            frame.event,
            events=self.events,
            bids=self.bids,
            extensions=frame.extensions,
            created_us=frame.created_us,
        )


class Outgoing:
    """A bounded queue of frames; ``now_s`` is any monotonic clock in seconds."""

    __slots__ = ("_bytes", "_conflate_at", "_limits", "_moved_s", "_queue")

    def __init__(self, limits: OutgoingLimits) -> None:
        self._limits = limits
        self._queue: deque[_Waiting] = deque()
        self._bytes = 0
        self._conflate_at = limits.frames_max
        self._moved_s = 0.0

    def __len__(self) -> int:
        return len(self._queue)

    @property
    def queued_bytes(self) -> int:
        """Total length of the waiting texts."""
        return self._bytes

    def push(self, frame: Frame, now_s: float) -> bool:
        """Queue a frame. False: the viewer is too slow even for conflated frames and should be closed."""
        if not self._queue:
            self._moved_s = now_s
        self._queue.append(_Waiting(frame, frame.events, frame.bids))
        self._bytes += len(frame.text)
        if len(self._queue) > self._conflate_at or self._bytes > self._limits.bytes_max:
            self._conflate()
        return self._bytes <= self._limits.bytes_max

    def pop(self, now_s: float) -> Frame:
        """The next frame to send.

        Raises:
            IndexError: nothing waits.
        """
        waiting = self._queue.popleft()
        self._moved_s = now_s
        self._bytes -= len(waiting.frame.text)
        if not self._queue:
            self._conflate_at = self._limits.frames_max
        return waiting.show()

    def is_stalled(self, now_s: float) -> bool:
        """Whether frames wait and none was taken for ``stalled_max_s``."""
        return bool(self._queue) and now_s - self._moved_s > self._limits.stalled_max_s

    def clear(self) -> None:
        self._queue.clear()
        self._bytes = 0

    def _conflate(self) -> None:
        """Keep of each item the newest snapshot, the newest event after it and the newest status of each topic, each at
        its place in the queue.

        The loop goes from the newest frame to the oldest, so it keeps the first event of an item that it meets.
        """
        newest_event: dict[str, _Waiting] = {}
        has_snapshot: set[str] = set()
        has_status: set[tuple[str, str]] = set()
        kept: deque[_Waiting] = deque()
        for waiting in reversed(self._queue):
            frame = waiting.frame
            if frame.kind is FrameKind.CONTROL:
                kept.appendleft(waiting)
            elif frame.kind is FrameKind.STATUS:
                if (frame.topic, frame.item_id) not in has_status:
                    has_status.add((frame.topic, frame.item_id))
                    kept.appendleft(waiting)
            elif frame.item_id in has_snapshot:
                continue
            elif frame.kind is FrameKind.SNAPSHOT:
                has_snapshot.add(frame.item_id)
                kept.appendleft(waiting)
            elif newer := newest_event.get(frame.item_id):
                newer.events += waiting.events
                newer.bids += waiting.bids
            else:
                newest_event[frame.item_id] = waiting
                kept.appendleft(waiting)
        self._queue = kept
        self._bytes = sum(len(waiting.frame.text) for waiting in kept)
        # With many items there is little to merge: conflate again only after as many new frames, so that the cost per
        # frame stays constant.
        self._conflate_at = max(self._limits.frames_max, 2 * len(kept))
