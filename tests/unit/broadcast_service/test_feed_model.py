"""Random histories through the hub: whatever the network does, what each viewer sees has no gap and never goes back.

The model is the world around the hub. Redis decides; the stream delivers late, twice, in another order or not at all;
reads from Redis take time; viewers come, go and come back with ``since``. The real loader's rule is modelled, not its
tasks: one read per item at a time, and one more where it was asked for meanwhile.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, initialize, invariant, rule

from broadcast_service.feed import ItemFeed, Recovery
from broadcast_service.frames import Frame, FrameKind, Version
from broadcast_service.hub import Effect, Hub, Load, NotFound, Send
from shared.messages import Event
from tests.unit.broadcast_service.builders import ITEM, bid, content, created, item, price_at

RECENT_MAX = 5
RING_MAX = 3


@dataclass(eq=False)
class Viewer:
    """Checks every frame as it comes. ``seen`` is what a client remembers across its connections."""

    seen: Version | None = None
    since: Version | None = None
    is_greeted: bool = False
    frames: list[Frame] = field(default_factory=list)

    def take(self, frame: Frame) -> None:
        self.frames.append(frame)
        shown = content(frame)
        version = (shown["epoch"], shown["seq"])
        if frame.kind is FrameKind.CONTROL:
            assert shown["type"] == "resumed"
            assert not self.is_greeted
            assert self.seen == self.since
            self.is_greeted = True
            return
        if frame.kind is FrameKind.SNAPSHOT:
            asked_and_denied = not self.is_greeted and self.since is not None
            assert shown.get("recovered") is (False if self.is_greeted or asked_and_denied else None) or (
                # The first event of an item that did not exist is a plain snapshot.
                self.seen == (0, -1) and version == (1, 0)
            )
            if self.seen is not None:
                # Once on one connection, a version is shown once; a viewer that comes back may be shown its own again.
                assert version > self.seen if self.is_greeted else version >= self.seen
        else:
            assert self.is_greeted, "an event before the first frame"
            assert self.seen is not None
            assert version == (self.seen[0], self.seen[1] + 1), f"{version} after {self.seen}"
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
            open_catalogue=True, make_feed=lambda item_id: ItemFeed(item_id, ring_events_max=RING_MAX)
        )
        # Redis.
        self.version: Version | None = None
        self.recent: list[Event] = []
        # The stream: messages of one or more events. Whatever was published may come again at any time.
        self.published: list[tuple[Event, ...]] = []
        self.is_up = True
        # The loader.
        self.wanted = False
        self.reading: tuple[Recovery | None] | None = None
        self.asked_again = False
        self.present: list[Viewer] = []
        self.hub.stream_up()

    @initialize(target=viewers, seqs=st.integers(0, 6))
    def begin(self, seqs: int) -> Viewer:
        """Most histories are about an item that exists and somebody who watches it."""
        if seqs:
            self.decide(seqs)
        viewer = self._enter(Viewer())
        self.begin_read()
        self.end_read()
        return viewer

    # ----------------------------------------------------------------------------------------- effects

    def carry_out(self, effects: list[Effect[Viewer]]) -> None:
        for effect in effects:
            match effect:
                case Send(frames, viewers):
                    for viewer in list(viewers):
                        for frame in frames:
                            viewer.take(frame)
                case Load():
                    if self.reading is None:
                        self.wanted = True
                    else:
                        self.asked_again = True
                case NotFound():
                    raise AssertionError("an open catalogue refuses nobody")

    # ------------------------------------------------------------------------------------------- Redis

    @rule(count=st.integers(1, 4))
    def decide(self, count: int) -> None:
        """Events are decided in one step and will be one message."""
        events: list[Event] = []
        for _ in range(count):
            if self.version is None:
                self.version = (1, 0)
                events.append(created())
            else:
                self.version = (self.version[0], self.version[1] + 1)
                events.append(bid(self.version[1], epoch=self.version[0]))
        self.recent = (self.recent + events)[-RECENT_MAX:]
        self.published.append(tuple(events))

    @rule()
    def rebuild(self) -> None:
        """Redis was lost and the item made anew from the archive, in the next epoch."""
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
        if self.version is None:
            self.reading = (None,)
            return
        epoch, seq = self.version
        since = self.hub.history_wanted(ITEM)
        events = () if since is None else tuple(event for event in self.recent if event.version > since)
        self.reading = (Recovery(item(seq, epoch=epoch), events),)

    @rule()
    def end_read(self) -> None:
        if self.reading is None:
            return
        [recovery] = self.reading
        self.reading = None
        again, self.asked_again = self.asked_again, False
        self.wanted = self.wanted or again
        if recovery is not None:
            self.carry_out(self.hub.loaded(ITEM, recovery, again=again))
        elif not again:
            self.carry_out(self.hub.missing(ITEM))

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
        """Any message that was ever published, in any order, as often as it likes."""
        if self.is_up and self.published:
            self.carry_out(self.hub.publish(ITEM, data.draw(st.sampled_from(self.published))))

    @rule()
    def deliver_newest(self) -> None:
        if self.is_up and self.published:
            self.carry_out(self.hub.publish(ITEM, self.published[-1]))

    @rule()
    def break_stream(self) -> None:
        self.is_up = False
        self.hub.stream_down()

    @rule()
    def mend_stream(self) -> None:
        self.is_up = True
        self.carry_out(self.hub.stream_up())

    # ----------------------------------------------------------------------------------------- viewers

    def _enter(self, viewer: Viewer) -> Viewer:
        self.present.append(viewer)
        self.carry_out(self.hub.subscribe(viewer, ITEM, viewer.since))
        return viewer

    @rule(target=viewers)
    def enter(self) -> Viewer:
        return self._enter(Viewer())

    @rule(target=viewers)
    def enter_from_elsewhere(self) -> Viewer:
        """Another broadcaster had shown it everything up to now."""
        return self._enter(Viewer(seen=self.version, since=self.version))

    @rule(target=gone, viewer=consumes(viewers))
    def leave(self, viewer: Viewer) -> Viewer:
        self.present.remove(viewer)
        self.hub.leave(viewer)
        return viewer

    @rule(target=viewers, viewer=consumes(gone))
    def come_back(self, viewer: Viewer) -> Viewer:
        return self._enter(Viewer(seen=viewer.seen, since=viewer.seen))

    # ------------------------------------------------------------------------------------- what must hold

    @invariant()
    def live_viewers_are_where_the_feed_is(self) -> None:
        channel = self.hub._channels.get(ITEM)
        for viewer in channel.live if channel else ():
            assert viewer.seen == channel.feed.version if channel else False

    def teardown(self) -> None:
        """The network heals. Then everybody must get to where Redis is."""
        self.mend_stream()
        for _ in range(20):
            self.begin_read()
            self.end_read()
        assert not self.wanted
        expected = self.version or (0, -1)
        for viewer in self.present:
            assert viewer.seen == expected, f"{viewer.seen}, Redis is at {expected}"


FeedModel.TestCase.settings = settings(max_examples=300, stateful_step_count=50, deadline=None)
TestFeedModel = FeedModel.TestCase
