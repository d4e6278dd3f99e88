"""Decides what the viewers of one item are shown, and in which order. Pure: no clock, no network.

The guarantee: after its first snapshot a viewer sees each event of the item once, in order, without a gap; or, where
events are no longer available, a new snapshot that says so. Versions only rise.

Events come from JetStream: duplicated, late, out of order or not at all. Snapshots come from Redis, which decided each
event before it was published. This order leaves no gap between snapshot and events:

1. A viewer subscribes. From now on the item's events are kept.
2. The snapshot is read, so it has every event from before step 1.
3. Events that arrive before the snapshot wait. Those that the snapshot has are dropped, the others follow it.
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
from shared.messages import AuctionExtended, AuctionResumed, EndMoved, Event, ItemCreated
from shared.redis_layout.item_hash import ItemState

WAITING_MAX: Final = 1024
"""Events of one item that may wait for a snapshot. More are dropped, and viewers then get a snapshot instead."""

OLD_SNAPSHOTS_MAX: Final = 3
"""After so many snapshots that are older than the events already seen, the feed stops waiting for a newer one."""


Wanted = Mapping[int, int]
"""Which events viewers have missed: for each epoch, all after this seq, the lowest that any of them has. The epoch in a
``since`` may be over, or may never have existed. In epoch 0 the item did not exist: all events are missed."""


@dataclass(frozen=True, slots=True)
class Recovery:
    """What Redis has of an item: its state, and the events that were asked for, oldest first."""

    item: ItemState
    events: tuple[Event, ...] = ()


@dataclass(frozen=True, slots=True)
class Advance:
    """What new events or a snapshot lead to: frames for all viewers, and whether a snapshot must be loaded."""

    frames: tuple[Frame, ...] = ()
    load: bool = False


NOTHING: Final = Advance()


class ItemFeed:
    """One item as its viewers know it; all are at the same ``version``.

    ``version`` is None until the first snapshot, and :data:`UNKNOWN` for an item that does not exist yet.
    """

    __slots__ = (
        "_base",
        "_extensions",
        "_hard_end_us",
        "_latest",
        "_old_snapshots",
        "_ring",
        "_snapshots",
        "_waiting",
        "item_id",
        "version",
    )

    def __init__(self, item_id: str, *, ring_events_max: int = 32) -> None:
        self.item_id = item_id
        self.version: Version | None = None
        # The item is the terms of `_base` with the state of `_latest`; combined only when a snapshot is needed.
        self._base: ItemState | None = None
        self._latest: Event | None = None
        # How often it was extended, from snapshots and from the events that extend.
        self._extensions = 0
        # Events do not carry it. Pauses and operators move it by as much as the end.
        self._hard_end_us: int | None = None
        self._snapshots: dict[bool | None, Frame] = {}
        # The last frames, consecutive and up to `version`, for viewers who reconnect.
        self._ring: deque[Frame] = deque(maxlen=ring_events_max)
        self._waiting: dict[Version, Event] = {}
        self._old_snapshots = 0

    # ------------------------------------------------------------------------------------------------- new knowledge

    def offer(self, events: Iterable[Event]) -> Advance:
        """Take events as they arrive. Old ones are dropped; those after a gap wait for a snapshot."""
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
        # The load of the first snapshot is in progress already.
        return Advance(tuple(frames), load=bool(self._waiting) and self.version is not None)

    def recover(self, recovery: Recovery) -> Advance:
        """Take a snapshot: the first one, or one that closes a gap.

        If it has all the events that viewers missed, they are replayed; otherwise viewers get the snapshot as a frame.
        """
        frames: list[Frame] = []
        if self.version is None:
            self._adopt(recovery)
        elif recovery.item.version > self.version:
            self._old_snapshots = 0
            missed = self._missed(recovery)
            if missed:
                self._base, self._latest = recovery.item, None
                self._extensions = _extensions_before(missed, recovery.item.state.extensions)
                frames += [self._apply(event) for event in missed]
                # The state after the last of them is that of Redis: some of it is in no event.
                self._latest, self._hard_end_us = None, recovery.item.state.hard_end_us
            else:
                self._adopt(recovery)
                frames.append(self.snapshot(recovered=False))
        frames += self._drain()
        if not self._waiting:
            self._old_snapshots = 0
            return Advance(tuple(frames))
        self._old_snapshots += 1
        if self._old_snapshots < OLD_SNAPSHOTS_MAX:
            return Advance(tuple(frames), load=True)
        # Redis keeps answering with a state older than what was published (it was restored from an old copy). Every
        # event carries the whole state, so the newest event serves as a snapshot.
        frames.append(self._jump(max(self._waiting.values(), key=lambda event: event.version)))
        return Advance(tuple(frames))

    def absent(self) -> None:
        """Redis does not have the item. A feed that knows it keeps its state; another starts at :data:`UNKNOWN`."""
        if self.version is None:
            self.version = UNKNOWN
        if self.version == UNKNOWN:
            self._waiting.clear()

    # ----------------------------------------------------------------------------------------------- what is to be seen

    def snapshot(self, *, recovered: bool | None = None) -> Frame:
        """The frame of the newest state, made once per version. ``version`` must not be None."""
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
        """By version: the frames in memory, and frames of the events of ``recovery``."""
        frames: dict[Version, Frame] = {}
        if recovery is not None:
            extensions = _extensions_before(recovery.events, recovery.item.state.extensions)
            for event in recovery.events:
                extensions = _extensions(event, extensions)
                if not isinstance(event, ItemCreated):
                    frames[event.version] = event_frame(
                        event, extensions=extensions, created_us=recovery.item.created_us
                    )
        frames.update((frame.version, frame) for frame in self._ring)
        return frames

    def resume(self, since: Version, history: Mapping[Version, Frame]) -> tuple[Frame, ...] | None:
        """Exactly the frames after ``since``, from ``history``; None if one of them is missing there."""
        if self.version is None:
            return None
        if since == self.version:
            return ()
        epoch, seq = since
        if epoch != self.version[0] or seq > self.version[1]:
            return None
        frames: list[Frame] = []
        # Stops at the first missing one, so it is bounded by what is kept.
        for missed in range(seq + 1, self.version[1] + 1):
            frame = history.get((epoch, missed))
            if frame is None:
                return None
            frames.append(frame)
        return tuple(frames)

    @property
    def item(self) -> ItemState | None:
        """The item after the last event, without the maxima, which are in no event; None where it is unknown."""
        if self._base is None or self._latest is None:
            return self._base
        return _after(self._base, self._latest, self._extensions, self._hard_end_us)

    @property
    def leader(self) -> str | None:
        """The leader or winner, None for nobody."""
        if self._latest is not None:
            return self._latest.highest_bidder_id
        return None if self._base is None else self._base.state.leader

    def may_recover(self, since: Version) -> bool:
        """Whether Redis may have more than memory: older events of this epoch, or a newer state."""
        return self.version is None or since[0] == self.version[0] or since > self.version

    # ------------------------------------------------------------------------------------------------- inside

    def _follows(self, event: Event) -> bool:
        if self.version is None or self._base is None:
            return False
        return event.version == (self.version[0], self.version[1] + 1)

    def _apply(self, event: Event) -> Frame:
        if isinstance(event, AuctionResumed | EndMoved):
            self._move_hard_end(event)
        self._latest = event
        self.version = event.version
        self._extensions = _extensions(event, self._extensions)
        self._snapshots.clear()
        # An item's first event has its terms, including the reserve: viewers get the public snapshot instead.
        if isinstance(event, ItemCreated):
            frame = self.snapshot()
        else:
            assert self._base is not None
            frame = event_frame(event, extensions=self._extensions, created_us=self._base.created_us)
        self._ring.append(frame)
        return frame

    def _move_hard_end(self, event: AuctionResumed | EndMoved) -> None:
        before_us: int | None
        if isinstance(event, EndMoved):
            before_us = event.previous_end_us
        elif self._latest is not None:
            before_us = self._latest.end_us
        else:
            before_us = None if self._base is None else self._base.state.end_us
        if self._hard_end_us is not None and event.end_us is not None and before_us is not None:
            self._hard_end_us += event.end_us - before_us

    def _adopt(self, recovery: Recovery) -> None:
        """Take the state of Redis, and keep the events that led to it for viewers who reconnect."""
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
            if tail and event.version != _next(tail[-1].version):
                tail.clear()
            if not isinstance(event, ItemCreated):
                tail.append(event)
        if tail and tail[-1].version == self.version:
            extensions = _extensions_before(tail, self._extensions)
            for event in tail:
                extensions = _extensions(event, extensions)
                created_us = recovery.item.created_us
                self._ring.append(event_frame(event, extensions=extensions, created_us=created_us))

    def _missed(self, recovery: Recovery) -> list[Event]:
        """The events between the feed's version and the recovery's; empty if one is missing."""
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
        """Go through the waiting events: drop those that are known by now, apply those that follow."""
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
        self._old_snapshots = 0
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
    """How often the item was extended before these events; ``at_end`` after them."""
    return next((event.extensions - 1 for event in events if isinstance(event, AuctionExtended)), at_end)


def _after(item: ItemState, event: Event, extensions: int, hard_end_us: int | None) -> ItemState:
    """The item after an event, which carries all of the public state; the terms never change. Maxima are not public and
    in no event, so they are 0 here.
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
