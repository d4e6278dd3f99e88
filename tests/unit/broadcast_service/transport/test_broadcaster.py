"""The hub's effects are carried out: frames to connections, timers, and the hooks."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Collection
from typing import Any

from broadcast_service.core.close_codes import INTERNAL_ERROR
from broadcast_service.core.feed import Recovery
from broadcast_service.core.hub import Hub
from broadcast_service.core.outgoing import OutgoingLimits
from broadcast_service.metrics import Metrics
from broadcast_service.transport.broadcaster import Broadcaster
from broadcast_service.transport.connection import Connection
from shared import names
from shared.messages import Event, encode_event, frame_batch
from tests.unit.broadcast_service.builders import ITEM, bid, bids, item
from tests.unit.broadcast_service.transport.test_connection import Broken, Pipe


class Time:
    """A loop's clock and timers, moved by the test."""

    def __init__(self) -> None:
        self.now_s = 50.0
        self._calls: list[tuple[float, int, Callable[[str], None], str]] = []
        self.made = 0

    def clock(self) -> float:
        return self.now_s

    def call_at(self, at_s: float, call: Callable[[str], None], argument: str) -> None:
        self.made += 1
        heapq.heappush(self._calls, (at_s, self.made, call, argument))

    def pass_(self, seconds: float) -> None:
        until_s = self.now_s + seconds
        while self._calls and self._calls[0][0] <= until_s:
            self.now_s, _, call, argument = heapq.heappop(self._calls)
            call(argument)
        self.now_s = until_s


def _nobody(*told: object) -> None:
    """Has nothing to say to single viewers."""


class World:
    def __init__(self, rate_max: float = 10, *, joined: Any = _nobody, standing_changed: Any = _nobody) -> None:
        self.time = Time()
        self.metrics = Metrics()
        self.hub: Hub[Connection] = Hub(rate_max=rate_max)
        self.loads: list[str] = []
        self.broadcaster = Broadcaster(
            self.hub,
            self.metrics,
            request_load=self.loads.append,
            joined=joined,
            standing_changed=standing_changed,
            clock=self.time.clock,
            call_at=self.time.call_at,
        )
        self.broadcaster.on_stream_up()

    def enter(self, pipe: Pipe, *, full: bool = False) -> Connection:
        connection = Connection(
            pipe, "c", single=True, limits=OutgoingLimits(), metrics=self.metrics, clock=self.time.clock
        )
        self.broadcaster.carry_out(self.hub.subscribe(connection, ITEM, full=full))
        return connection

    def publish(self, *events: Event, shard_epoch: int = 1) -> None:
        data = frame_batch(names.shard_of(ITEM), shard_epoch, 1, ITEM, b"[%b]" % b",".join(map(encode_event, events)))
        self.broadcaster.on_message(names.subject_of(ITEM), data)


def test_what_waits_is_sent_when_its_time_has_come() -> None:
    world = World()
    conflated, full = Pipe(), Pipe()
    world.enter(conflated)
    world.enter(full, full=True)
    world.broadcaster.loaded(ITEM, Recovery(item(0)), again=False)
    for seq in range(1, 6):
        world.publish(bid(seq))
        world.time.pass_(0.01)
    assert full.seqs == [0, 1, 2, 3, 4, 5]
    assert conflated.seqs == [0, 1]
    world.time.pass_(0.1)
    assert conflated.seqs == [0, 1, 5]
    assert world.time.made == 1, "one timer for all that waited"
    assert world.metrics.frames_sent == len(full.seqs) + len(conflated.seqs)


def test_an_item_without_viewers_wakes_nobody() -> None:
    world = World()
    connection = world.enter(Pipe())
    world.broadcaster.loaded(ITEM, Recovery(item(0)), again=False)
    for event in bids(1, 3):
        world.publish(event)
    world.hub.leave(connection)
    world.time.pass_(1)
    assert not world.hub.watches(ITEM)


def test_the_loss_of_the_stream_and_its_return() -> None:
    world = World()
    pipe = Pipe()
    world.enter(pipe)
    world.broadcaster.history_wanted(ITEM)
    world.broadcaster.loaded(ITEM, Recovery(item(1)), again=False)
    world.broadcaster.on_stream_down()
    world.broadcaster.on_stream_up()
    world.broadcaster.history_wanted(ITEM)
    world.broadcaster.loaded(ITEM, Recovery(item(2), bids(2, 2)), again=False)
    assert [content["type"] for content in pipe.contents] == ["snapshot", "stale", "bid", "stale"]
    assert [content.get("stale") for content in pipe.contents] == [None, True, None, False]


def test_hooks_are_called_after_the_frames() -> None:
    pipe = Pipe()
    calls: list[tuple[str, int]] = []

    def joined(item_id: str, viewers: Collection[Connection]) -> None:
        assert [viewer.client_id for viewer in viewers] == ["c"]
        calls.append((f"joined {item_id}", len(pipe.seqs)))

    def standing_changed(item_id: str, users: frozenset[str]) -> None:
        calls.append((f"{item_id}: {sorted(users)}", len(pipe.seqs)))

    world = World(joined=joined, standing_changed=standing_changed)
    world.enter(pipe)
    world.broadcaster.loaded(ITEM, Recovery(item(1)), again=False)
    world.publish(bid(2))
    world.publish()
    raised = (f"{ITEM}: ['user-2']", 2)
    assert calls == [(f"joined {ITEM}", 1), (f"{ITEM}: ['user-1', 'user-2']", 2), raised]


def test_after_an_event_of_an_unknown_type_viewers_get_the_item_as_it_is_now() -> None:
    world = World()
    pipe = Pipe()
    world.enter(pipe)
    world.broadcaster.history_wanted(ITEM)
    world.broadcaster.loaded(ITEM, Recovery(item(1)), again=False)
    world.loads.clear()
    newer = encode_event(bid(2)).replace(b'"type":"bid"', b'"type":"relisted"')
    data = frame_batch(names.shard_of(ITEM), 1, 1, ITEM, b"[%b]" % newer)
    world.broadcaster.on_message(names.subject_of(ITEM), data)
    assert world.loads == [ITEM], "Redis is asked at once, and not when the gap shows"
    world.broadcaster.history_wanted(ITEM)
    world.broadcaster.loaded(ITEM, Recovery(item(2)), again=False)
    assert pipe.seqs == [1, 2]


def test_a_transport_that_fails_is_given_up_and_the_others_are_served() -> None:
    world = World()
    pipes = [Pipe(), Broken(), Pipe()]
    for pipe in pipes:
        world.enter(pipe)
    world.broadcaster.loaded(ITEM, Recovery(item(1)), again=False)
    world.publish(bid(2))
    assert [pipe.seqs for pipe in pipes] == [[1, 2], [], [1, 2]]
    assert pipes[1].finished == [INTERNAL_ERROR.code]


def test_a_message_without_events_shows_nothing_to_anybody() -> None:
    world = World()
    pipe = Pipe()
    world.enter(pipe)
    world.broadcaster.loaded(ITEM, Recovery(item(1)), again=False)
    world.publish()
    assert pipe.seqs == [1]
    assert world.metrics.events_unreadable == 0


def test_the_number_of_viewers() -> None:
    world = World()
    pipe = Pipe()
    world.enter(pipe)
    world.broadcaster.loaded(ITEM, Recovery(item(1)), again=False)
    world.broadcaster.tell_viewers(ITEM, 7, exact=False)
    assert pipe.contents[-1] == {"type": "viewers", "item_id": ITEM, "viewers": 7, "exact": False}
