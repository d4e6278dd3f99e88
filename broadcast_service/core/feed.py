"""What the viewers of one item are shown, and in which order. Pure: no clock, no network.

The guarantee: after its first snapshot a viewer sees each event of the item once, in order, without a gap; or, where
events cannot be had any more, a new snapshot that says so. Versions only rise.

Events come from JetStream: duplicated, late, out of order or not at all. Snapshots come from Redis, which decided
every event before anybody could hear of it. The joint is closed by this order:

1. a viewer subscribes, and from now on the item's events are looked at;
2. the snapshot is asked for, so it holds every event that step 1 was too late for;
3. events that arrive in between wait; those that the snapshot has already are dropped, the others follow it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

import msgspec

from broadcast_service.core.frames import (
    UNKNOWN,
    Frame,
    Version,
    event_frame,
    snapshot_frame,
    unknown_frame,
)
from shared.domain.auction import Status
from shared.messages import AuctionExtended, AuctionResumed, Event, ItemCreated
from shared.redis_layout.item_hash import ItemState

WAITING_MAX: Final = 1024
"""Events of one item that may wait for a snapshot. Dropping more of them only makes the next snapshot explicit."""

VAIN_LOADS_MAX: Final = 3
"""Snapshots that may be older than the events already seen before the feed stops waiting for a better one."""


Wanted = Mapping[int, int]
"""Which events somebody has missed: by epoch, all after the lowest seq that anybody knows. What viewers come back with
may be of an epoch that is over, or of one that never was. In epoch 0 the item did not exist: then it is all events."""


@dataclass(frozen=True, slots=True)
class Recovery:
    """What Redis knows of an item: its state, and as far as asked for the events that led to it, oldest first."""

    item: ItemState
    events: tuple[Event, ...] = ()


@dataclass(frozen=True, slots=True)
class Advance:
    """What follows from new knowledge: frames for everybody who watches, and whether a snapshot must be loaded."""

    frames: tuple[Frame, ...] = ()
    load: bool = False


NOTHING: Final = Advance()


class ItemFeed:
    """One item as its viewers know it; all of them are at the same ``version``.

    ``version`` is None until the first snapshot, and :data:`UNKNOWN` for an item that does not exist yet.
    """

    __slots__ = (
        "_base",
        "_extensions",
        "_hard_end_us",
        "_latest",
        "_ring",
        "_snapshots",
        "_vain_loads",
        "_waiting",
        "item_id",
        "version",
    )

    def __init__(self, item_id: str, *, ring_events_max: int = 32) -> None:
        self.item_id = item_id
        self.version: Version | None = None
        # The item is `_base` (for its terms) after `_latest`; put together only when somebody needs a snapshot.
        self._base: ItemState | None = None
        self._latest: Event | None = None
        # How often it was extended: told by snapshots, and by the events that extend.
        self._extensions = 0
        # A pause moves it with the end, which is all that events tell of it.
        self._hard_end_us: int | None = None
        self._snapshots: dict[bool | None, Frame] = {}
        # The last frames, consecutive and up to `version`, for viewers that come back.
        self._ring: deque[Frame] = deque(maxlen=ring_events_max)
        self._waiting: dict[Version, Event] = {}
        self._vain_loads = 0

    # ------------------------------------------------------------------------------------------------- new knowledge

    def offer(self, events: Iterable[Event]) -> Advance:
        """Events as they come in. What is not newer is dropped, what leaves a gap waits for a snapshot."""
        frames: list[Frame] = []
        for event in events:
            if self.version is not None and event.version <= self.version:
                continue
            if self._follows(event):
                frames.append(self._apply(event))
            else:
                self._wait(event)
        if not self._waiting:
            return Advance(tuple(frames)) if frames else NOTHING
        frames += self._drain()
        # Before the first snapshot the load is under way already.
        return Advance(tuple(frames), load=bool(self._waiting) and self.version is not None)

    def recover(self, recovery: Recovery) -> Advance:
        """A snapshot: the first one, or one to close a gap.

        Events that viewers missed are replayed where all of them are there; otherwise the snapshot itself is a frame.
        """
        frames: list[Frame] = []
        if self.version is None:
            self._adopt(recovery)
        elif recovery.item.version > self.version:
            self._vain_loads = 0
            missed = self._missed(recovery)
            if missed:
                self._base, self._latest = recovery.item, None
                self._extensions = _extensions_before(missed, recovery.item.state.extensions)
                frames += [self._apply(event) for event in missed]
                # What Redis says of the item after the last of them; some of it is in no event.
                self._latest, self._hard_end_us = None, recovery.item.state.hard_end_us
            else:
                self._adopt(recovery)
                frames.append(self.snapshot(recovered=False))
        frames += self._drain()
        if not self._waiting:
            self._vain_loads = 0
            return Advance(tuple(frames))
        self._vain_loads += 1
        if self._vain_loads < VAIN_LOADS_MAX:
            return Advance(tuple(frames), load=True)
        # Redis keeps answering with something older than what it published (it was restored from an old copy). Every
        # event carries the whole state, so the newest one is as good as a snapshot.
        frames.append(self._jump(max(self._waiting.values(), key=lambda event: event.version)))
        return Advance(tuple(frames))

    def absent(self) -> None:
        """Redis has no such item. A feed that knew it keeps what it knows; another one starts at :data:`UNKNOWN`."""
        if self.version is None:
            self.version = UNKNOWN
        if self.version == UNKNOWN:
            self._waiting.clear()

    # ----------------------------------------------------------------------------------------------- what is to be seen

    def snapshot(self, *, recovered: bool | None = None) -> Frame:
        """The frame of the newest state, made once per version. There must be a version."""
        frame = self._snapshots.get(recovered)
        if frame is None:
            item = self.item
            frame = (
                unknown_frame(self.item_id, recovered=recovered)
                if item is None
                else snapshot_frame(item, recovered=recovered)
            )
            self._snapshots[recovered] = frame
        return frame

    def history(self, recovery: Recovery | None = None) -> dict[Version, Frame]:
        """The frames that are in memory, and those of the events of ``recovery``, by version."""
        frames: dict[Version, Frame] = {}
        if recovery is not None:
            extensions = _extensions_before(recovery.events, recovery.item.state.extensions)
            for event in recovery.events:
                extensions = _extensions(event, extensions)
                if not isinstance(event, ItemCreated):
                    frames[event.version] = event_frame(event, extensions=extensions)
        frames.update((frame.version, frame) for frame in self._ring)
        return frames

    def resume(self, since: Version, history: Mapping[Version, Frame]) -> tuple[Frame, ...] | None:
        """Exactly the frames after ``since``, out of ``history``; None where any of them is not there."""
        if self.version is None:
            return None
        if since == self.version:
            return ()
        epoch, seq = since
        if epoch != self.version[0] or seq > self.version[1]:
            return None
        frames: list[Frame] = []
        # Ends at the first one that is missing, so it is never longer than what is kept.
        for missed in range(seq + 1, self.version[1] + 1):
            frame = history.get((epoch, missed))
            if frame is None:
                return None
            frames.append(frame)
        return tuple(frames)

    @property
    def item(self) -> ItemState | None:
        """The item after the last event, but for the maxima, which no event tells; None where it is unknown."""
        if self._base is None or self._latest is None:
            return self._base
        return _after(self._base, self._latest, self._extensions, self._hard_end_us)

    @property
    def leader(self) -> str | None:
        """Who leads, or won."""
        if self._latest is not None:
            return self._latest.highest_bidder_id
        return None if self._base is None else self._base.state.leader

    def may_recover(self, since: Version) -> bool:
        """Whether Redis may know more than memory: old events of this epoch, or a state newer than ours."""
        return self.version is None or since[0] == self.version[0] or since > self.version

    # ------------------------------------------------------------------------------------------------- inside

    def _follows(self, event: Event) -> bool:
        if self.version is None or self._base is None:
            return False
        if self.version == UNKNOWN:
            return isinstance(event, ItemCreated)
        return event.version == (self.version[0], self.version[1] + 1)

    def _apply(self, event: Event) -> Frame:
        if isinstance(event, AuctionResumed):
            self._move_hard_end(event)
        self._latest = event
        self.version = event.version
        self._extensions = _extensions(event, self._extensions)
        self._snapshots.clear()
        # The terms of an item, its reserve among them, are in its first event: viewers get the public snapshot instead.
        frame = self.snapshot() if isinstance(event, ItemCreated) else event_frame(event, extensions=self._extensions)
        self._ring.append(frame)
        return frame

    def _move_hard_end(self, event: AuctionResumed) -> None:
        if self._latest is not None:
            before_us = self._latest.end_us
        else:
            before_us = None if self._base is None else self._base.state.end_us
        if self._hard_end_us is not None and event.end_us is not None and before_us is not None:
            self._hard_end_us += event.end_us - before_us

    def _adopt(self, recovery: Recovery) -> None:
        """The state of Redis as it is, with the events that led to it for viewers that come back."""
        self._base, self._latest = recovery.item, None
        self._extensions = recovery.item.state.extensions
        self._hard_end_us = recovery.item.state.hard_end_us
        self.version = recovery.item.version
        self._snapshots.clear()
        self._ring.clear()
        if self._ring.maxlen == 0:
            return
        tail: deque[Event] = deque(maxlen=self._ring.maxlen)
        for event in recovery.events:
            if isinstance(event, ItemCreated) or (tail and event.version != _next(tail[-1].version)):
                tail.clear()
            if not isinstance(event, ItemCreated):
                tail.append(event)
        if tail and tail[-1].version == self.version:
            extensions = _extensions_before(tail, self._extensions)
            for event in tail:
                extensions = _extensions(event, extensions)
                self._ring.append(event_frame(event, extensions=extensions))

    def _missed(self, recovery: Recovery) -> list[Event]:
        """The events between what viewers know and the recovery; empty where one of them is not there."""
        assert self.version is not None
        at, target = self.version, recovery.item.version
        missed: list[Event] = []
        for event in recovery.events:
            if not at < event.version <= target:
                continue
            if event.version != _next(at) and not (at == UNKNOWN and isinstance(event, ItemCreated)):
                return []
            missed.append(event)
            at = event.version
        return missed if at == target else []

    def _drain(self) -> list[Frame]:
        """Events that waited: those that are known by now are dropped, those that follow are applied."""
        if self.version is None:
            return []
        frames: list[Frame] = []
        for version in sorted(self._waiting):
            event = self._waiting[version]
            if version > self.version:
                if not self._follows(event):
                    break
                frames.append(self._apply(event))
            del self._waiting[version]
        return frames

    def _wait(self, event: Event) -> None:
        self._waiting[event.version] = event
        if len(self._waiting) > WAITING_MAX:
            del self._waiting[min(self._waiting)]

    def _jump(self, event: Event) -> Frame:
        self._waiting.clear()
        self._vain_loads = 0
        self._latest = event
        self._extensions = _extensions(event, self._extensions)
        self.version = event.version
        self._snapshots.clear()
        self._ring.clear()
        return self.snapshot(recovered=False)


def _next(version: Version) -> Version:
    return (version[0], version[1] + 1)


def _extensions(event: Event, before: int) -> int:
    """How often the item was extended up to the event."""
    return event.extensions if isinstance(event, AuctionExtended) else before


def _extensions_before(events: Iterable[Event], at_end: int) -> int:
    """How often the item was extended before these events, the last of which led to ``at_end``."""
    return next((event.extensions - 1 for event in events if isinstance(event, AuctionExtended)), at_end)


def _after(item: ItemState, event: Event, extensions: int, hard_end_us: int | None) -> ItemState:
    """The item after an event: its terms never change, and the event carries all of the public state.

    Maxima are in no event; they are not public either, so they are left at 0 here.
    """
    state = replace(
        item.state,
        status=Status(event.status),
        price=event.current_bid,
        leader=event.highest_bidder_id,
        leader_max=0,
        runner_up=0,
        bid_count=event.bid_count,
        seq=event.seq,
        epoch=event.epoch,
        end_us=event.end_us,
        hard_end_us=hard_end_us,
        extensions=extensions,
        reserve_met=event.reserve_met,
    )
    return msgspec.structs.replace(item, state=state, updated_us=event.ts_us)
