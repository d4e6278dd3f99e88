"""Random histories through the hub: whatever the network does, each viewer sees no gap and never goes back.

The model is the world around the hub. Redis decides; the stream delivers late, twice, out of order or not at all; reads
from Redis take time; time passes; viewers join, leave, return with ``since``, and ask for every event or for conflated
frames. The model has the loader's rule, not its tasks: one read per item at a time, and one more if it was requested
during a read.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from broadcast_service.core.effects import Effect, Joined, Load, NotFound, Send, StandingChanged, Wake
from broadcast_service.core.feed import ItemFeed, Recovery
from broadcast_service.core.frames import Frame, FrameKind, Version
from broadcast_service.core.hub import Hub
from shared.messages import Event
from tests.searching import examples
from tests.unit.broadcast_service.builders import ITEM, bid, content, created, extended, item, paused, price_at

RECENT_MAX = 5
RING_MAX = 3
RATE = 20.0


@dataclass(eq=False)
class Viewer:
    """Checks every frame. ``seen`` and ``bid_count`` are what a client remembers across its connections."""

    full: bool = False
    seen: Version | None = None
    bid_count: int = 0
    since: Version | None = None
    is_greeted: bool = False
    has_joined: bool = False
    is_stale: bool = False
    frames: list[Frame] = field(default_factory=list)

    def take(self, frame: Frame) -> None:
        self.frames.append(frame)
        shown = content(frame)
        match frame.kind:
            case FrameKind.STATUS:
                self._take_status(shown)
            case FrameKind.CONTROL:
                assert shown["type"] == "resumed"
                assert not self.is_greeted
                assert self.seen == self.since
                self.is_greeted = True
            case FrameKind.SNAPSHOT:
                self._take_snapshot(shown)
            case FrameKind.EVENT:
                self._take_event(shown)

    def _take_status(self, shown: dict[str, Any]) -> None:
        assert self.is_greeted
        if shown["type"] == "stale":
            assert shown["stale"] is not self.is_stale, "said twice"
            assert (shown["epoch"], shown["seq"]) == self.seen, "the state that it is about comes before it"
            self.is_stale = shown["stale"]

    def _take_snapshot(self, shown: dict[str, Any]) -> None:
        version = (shown["epoch"], shown["seq"])
        asked_and_denied = not self.is_greeted and self.since is not None
        assert shown.get("recovered") is (False if self.is_greeted or asked_and_denied else None) or (
            # The first event of an item that did not exist is a plain snapshot.
            self.seen == (0, -1) and version == (1, 0)
        )
        if self.seen is not None:
            # On one connection a version is shown once; a viewer who reconnects may be shown its last one again.
            assert version > self.seen if self.is_greeted else version >= self.seen
        self.bid_count = shown.get("bid_count", 0)
        self._saw(shown, version)

    def _take_event(self, shown: dict[str, Any]) -> None:
        version = (shown["epoch"], shown["seq"])
        assert self.is_greeted, "an event before the first frame"
        assert self.seen is not None
        if shown["type"] == "state":
            assert not self.full
            assert version > (self.seen[0], self.seen[1] + 1), "more than one event"
            assert version[0] == self.seen[0]
            self.bid_count += shown["bids_since_last"]
        else:
            assert version == (self.seen[0], self.seen[1] + 1), f"{version} after {self.seen}"
            self.bid_count += shown["type"] == "bid"
        assert shown["bid_count"] == self.bid_count, "every bid is shown or counted"
        self._saw(shown, version)

    def _saw(self, shown: dict[str, Any], version: Version) -> None:
        if shown["status"] != "unknown":
            assert shown["current_bid"] == price_at(shown["seq"]) / 100
        self.is_greeted = True
        self.seen = version


class FeedModel(RuleBasedStateMachine):
    viewers = Bundle("viewers")
    gone = Bundle("gone")

    def __init__(self) -> None:
        super().__init__()
        self.hub: Hub[Viewer] = Hub(
            open_catalogue=True,
            rate_max=RATE,
            make_feed=lambda item_id: ItemFeed(item_id, ring_events_max=RING_MAX),
        )
        self.now_s = 100.0
        self.wakes: list[float] = []
        # Redis.
        self.version: Version | None = None
        self.bid_count = 0
        self.extensions = 0
        self.recent: list[Event] = []
        # The stream: messages of one or more events. Every published message may come again at any time.
        self.published: list[tuple[Event, ...]] = []
        self.is_up = True
        # The version in Redis when the stream came back: viewers must know it when they are told so.
        self.version_at_up: Version | None = None
        # The loader.
        self.wanted = False
        self.reading: tuple[Recovery | None] | None = None
        self.asked_again = False
        self.present: list[Viewer] = []
        self.hub.stream_up()

    @initialize(target=viewers, seqs=st.integers(0, 6), full=st.booleans())
    def begin(self, seqs: int, full: bool) -> Viewer:
        """Most histories begin with an existing item and a viewer."""
        if seqs:
            self.decide(seqs, ["bid"])
        viewer = self._enter(Viewer(full))
        self.begin_read()
        self.end_read()
        return viewer

    # ----------------------------------------------------------------------------------------- effects

    def carry_out(self, effects: list[Effect[Viewer]]) -> None:
        for effect in effects:
            match effect:
                case Send(frames, viewers):
                    assert frames
                    for viewer in list(viewers):
                        for frame in frames:
                            was_stale = viewer.is_stale
                            viewer.take(frame)
                            if was_stale and not viewer.is_stale and self.version_at_up is not None:
                                assert viewer.seen is not None
                                assert viewer.seen >= self.version_at_up
                case Load():
                    if self.reading is None:
                        self.wanted = True
                    else:
                        self.asked_again = True
                case Wake(_, at_s):
                    self.wakes.append(at_s)
                case Joined(_, viewers):
                    for viewer in viewers:
                        assert viewer.is_greeted
                        assert not viewer.has_joined
                        viewer.has_joined = True
                case StandingChanged():
                    pass
                case NotFound():
                    raise AssertionError("an open catalogue refuses nobody")

    # -------------------------------------------------------------------------------------------- time

    @rule(ms=st.sampled_from([0, 1, 20, 49, 50, 51, 100, 500]))
    def pass_time(self, ms: int) -> None:
        self.now_s += ms / 1000
        for at_s in sorted(self.wakes):
            # Timers may fire a little early.
            if at_s <= self.now_s + 0.0005:
                self.wakes.remove(at_s)
                self.carry_out(self.hub.flush(ITEM, self.now_s))

    @rule()
    def flush_at_any_time(self) -> None:
        self.carry_out(self.hub.flush(ITEM, self.now_s))

    # ------------------------------------------------------------------------------------------- Redis

    @rule(count=st.integers(1, 5), kinds=st.lists(st.sampled_from(["bid", "bid", "extended", "paused"]), min_size=1))
    def decide(self, count: int, kinds: list[str]) -> None:
        """Decide events in one step; they will be one message."""
        events: list[Event] = []
        for number in range(count):
            if self.version is None:
                self.version = (1, 0)
                events.append(created())
                continue
            self.version = epoch, seq = (self.version[0], self.version[1] + 1)
            match kinds[number % len(kinds)]:
                case "bid":
                    self.bid_count += 1
                    events.append(bid(seq, epoch=epoch, bid_count=self.bid_count))
                case "extended":
                    self.extensions += 1
                    events.append(extended(seq, self.extensions, epoch=epoch, bid_count=self.bid_count))
                case _:
                    events.append(paused(seq, epoch=epoch, bid_count=self.bid_count))
        self.recent = (self.recent + events)[-RECENT_MAX:]
        self.published.append(tuple(events))

    @rule()
    def rebuild(self) -> None:
        """Redis was lost, and the item was rebuilt from the archive in the next epoch."""
        if self.version is not None:
            self.version = (self.version[0] + 1, self.version[1])
            self.recent = []

    # ------------------------------------------------------------------------------------------ loader

    @rule()
    def begin_read(self) -> None:
        if not self.wanted or self.reading is not None:
            return
        self.wanted = False
        if not self.hub.watches(ITEM):
            return
        wanted = self.hub.history_wanted(ITEM)
        if self.version is None:
            self.reading = (None,)
            return
        epoch, seq = self.version
        after = min((wanted[each] for each in (0, epoch) if each in wanted), default=seq)
        events = tuple(event for event in self.recent if event.epoch == epoch and event.seq > after)
        known = item(seq, epoch=epoch, bid_count=self.bid_count, extensions=self.extensions)
        self.reading = (Recovery(known, events),)

    @rule()
    def end_read(self) -> None:
        if self.reading is None:
            return
        [recovery] = self.reading
        self.reading = None
        again, self.asked_again = self.asked_again, False
        self.wanted = self.wanted or again
        if recovery is not None:
            self.carry_out(self.hub.loaded(ITEM, recovery, self.now_s, again=again))
        elif not again:
            self.carry_out(self.hub.missing(ITEM, self.now_s))

    @rule()
    def read(self) -> None:
        """A fast read."""
        self.begin_read()
        self.end_read()

    @rule()
    def fail_read(self) -> None:
        if self.reading is None:
            return
        self.reading = None
        self.asked_again = False
        self.wanted = True
        self.carry_out(self.hub.load_failed(ITEM))

    # ------------------------------------------------------------------------------------------ stream

    @rule(data=st.data())
    def deliver(self, data: st.DataObject) -> None:
        """Deliver any published message, in any order and any number of times."""
        if self.is_up and self.published:
            self.carry_out(self.hub.publish(ITEM, data.draw(st.sampled_from(self.published)), self.now_s))

    @rule()
    def deliver_newest(self) -> None:
        if self.is_up and self.published:
            self.carry_out(self.hub.publish(ITEM, self.published[-1], self.now_s))

    @rule(count=st.integers(1, 5), kinds=st.lists(st.sampled_from(["bid", "bid", "extended", "paused"]), min_size=1))
    def decide_and_deliver(self, count: int, kinds: list[str]) -> None:
        """Deliver as in the normal case."""
        self.decide(count, kinds)
        self.deliver_newest()

    @rule()
    def break_stream(self) -> None:
        self.is_up = False
        self.carry_out(self.hub.stream_down(self.now_s))

    @rule()
    def mend_stream(self) -> None:
        self.is_up = True
        self.version_at_up = self.version
        self.carry_out(self.hub.stream_up())

    # ----------------------------------------------------------------------------------------- viewers

    def _enter(self, viewer: Viewer) -> Viewer:
        self.present.append(viewer)
        self.carry_out(self.hub.subscribe(viewer, ITEM, viewer.since, full=viewer.full))
        return viewer

    @rule(target=viewers, full=st.booleans())
    def enter(self, full: bool) -> Viewer:
        return self._enter(Viewer(full))

    @rule(target=viewers, full=st.booleans())
    def enter_from_elsewhere(self, full: bool) -> Viewer:
        """A viewer comes whom another broadcaster has shown everything up to now."""
        return self._enter(Viewer(full, seen=self.version, since=self.version, bid_count=self.bid_count))

    @rule(target=gone, viewer=consumes(viewers))
    def leave(self, viewer: Viewer) -> Viewer:
        self.present.remove(viewer)
        self.hub.leave(viewer)
        return viewer

    @rule(target=viewers, viewer=consumes(gone), full=st.booleans())
    def come_back(self, viewer: Viewer, full: bool) -> Viewer:
        return self._enter(Viewer(full, seen=viewer.seen, since=viewer.seen, bid_count=viewer.bid_count))

    @rule(viewer=viewers, full=st.booleans())
    def subscribe_again(self, viewer: Viewer, full: bool) -> None:
        """Subscribe again on the same connection, from the last version, perhaps with the other ``feed``."""
        viewer.full, viewer.since = full, viewer.seen
        viewer.is_greeted = viewer.has_joined = viewer.is_stale = False
        self.carry_out(self.hub.subscribe(viewer, ITEM, viewer.since, full=full))

    # ------------------------------------------------------------------------------------- what must hold

    @invariant()
    def viewers_are_where_the_feed_is(self) -> None:
        channel = self.hub._channels.get(ITEM)
        if channel is None:
            assert not self.present
            return
        waits = channel._conflated.due_s is not None
        assert not waits or self.wakes, "something waits, and nobody will ask for it"
        for viewer in self.present:
            assert viewer.has_joined is (viewer not in channel.pending)
            if viewer.has_joined:
                assert viewer.is_stale is channel.is_stale
                if viewer.full or not waits:
                    assert viewer.seen == channel.feed.version

    def teardown(self) -> None:
        """The network heals. Then every viewer must get to the version in Redis."""
        self.mend_stream()
        for _ in range(20):
            self.begin_read()
            self.end_read()
            self.pass_time(1000)
        assert not self.wanted
        assert not self.wakes
        expected = self.version or (0, -1)
        for viewer in self.present:
            assert viewer.seen == expected, f"{viewer.seen}, Redis is at {expected}"
            assert not viewer.is_stale
            if self.version is not None:
                assert viewer.bid_count == self.bid_count


FeedModel.TestCase.settings = settings(max_examples=examples(200), stateful_step_count=50)
TestFeedModel = FeedModel.TestCase
