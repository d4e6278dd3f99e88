"""Random histories through the client's state machine: whatever the service and the network do, nothing goes back.

The model is the world around it: an auction that goes on, a service that answers subscriptions as documented (exactly
what was missed, or a snapshot), and a network that repeats, loses, swaps and merges frames, and cuts the connection.
"""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from shared.feed_client.state import FeedState, Step
from shared.feed_client.updates import ItemUpdate, Version
from tests.searching import examples

ITEM = "vase"
KEPT_MAX = 6

Json = dict[str, Any]


class ClientModel(RuleBasedStateMachine):
    """``honest``: so far the network brought every frame of this connection, once and in order."""

    def __init__(self) -> None:
        super().__init__()
        self.version: Version = (1, 0)
        self.prices: dict[Version, int] = {(1, 0): 100}
        self.voids: set[Version] = set()
        self.kept: list[Json] = []
        self.on_the_way: list[Json] = []
        self.is_connected = False
        self.is_subscribed = False
        self.seen: list[ItemUpdate] = []
        self.is_full = False
        self.client = FeedState([ITEM], chance=lambda: 0.5)

    @initialize(is_full=st.booleans())
    def begin(self, is_full: bool) -> None:
        self.is_full = is_full
        self.client = FeedState([ITEM], full=is_full, chance=lambda: 0.5)
        self.connect()

    # ------------------------------------------------------------------------------------------------- the service

    def _frame(self, kind: str, **fields: Any) -> Json:
        epoch, seq = self.version
        state: Json = {"type": kind, "item_id": ITEM, "epoch": epoch, "seq": seq}
        return state | {"current_bid": self.prices[self.version], "status": "open"} | fields

    def _carry_out(self, step: Step) -> None:
        for update in step.updates:
            if isinstance(update, ItemUpdate):
                self.check(update)
        for message in step.messages:
            operation = json.loads(message)
            assert operation["op"] == "subscribe"
            self._subscribe(operation.get("since", {}).get(ITEM))

    def _subscribe(self, since: str | None) -> None:
        self.is_subscribed = True
        if since is not None:
            epoch, seq = map(int, since.split(":"))
            if (epoch, seq) == self.version:
                missed: list[Json] | None = []
            else:
                missed = [frame for frame in self.kept if frame["epoch"] == epoch and frame["seq"] > seq]
                if not missed or missed[0]["seq"] != seq + 1:
                    missed = None
            if missed is not None:
                marker = self._frame("resumed", since=since, recovered=True, replayed=len(missed))
                self.on_the_way += [marker, *missed]
                return
        self.on_the_way.append(self._frame("snapshot", **({} if since is None else {"recovered": False})))

    @rule(
        kind=st.sampled_from(["bid", "bid", "bid", "extended", "voided", "paused", "resumed"]), rise=st.integers(1, 9)
    )
    def something_happens(self, kind: str, rise: int) -> None:
        epoch, seq = self.version
        price = self.prices[self.version] + (rise if kind == "bid" else -rise if kind == "voided" else 0)
        self.version = (epoch, seq + 1)
        self.prices[self.version] = price
        if kind == "voided":
            self.voids.add(self.version)
        event = self._frame(kind, event_id=f"{ITEM}:{epoch}:{seq + 1}")
        self.kept = [*self.kept, event][-KEPT_MAX:]
        if self.is_subscribed:
            self.on_the_way.append(event)

    @rule(back=st.integers(0, 3))
    def the_item_is_rebuilt(self, back: int) -> None:
        """Redis was lost: the item goes on with a higher epoch, perhaps without the last few events."""
        epoch, seq = self.version
        price = self.prices[self.version] - back
        self.version = (epoch + 1, max(0, seq - back))
        self.prices[self.version] = price
        self.kept = []
        if self.is_subscribed:
            self.on_the_way.append(self._frame("snapshot", recovered=False))

    @rule()
    def frames_that_wait_are_merged(self) -> None:
        """Merge frames as for a slow viewer: the newest state in place of all events at the end of the queue."""
        mergeable = ("bid", "extended", "state")
        merged = 0
        newest: Json = {}
        while self.on_the_way and self.on_the_way[-1]["type"] in mergeable and merged < 4:
            last = self.on_the_way.pop()
            newest = newest or last
            merged += 1
        if merged:
            self.on_the_way.append(newest if merged == 1 else newest | {"type": "state", "bids_since_last": merged})

    # ------------------------------------------------------------------------------------------------- the network

    @precondition(lambda self: self.is_connected)
    @rule(count=st.integers(1, 8))
    def frames_arrive(self, count: int) -> None:
        for _ in range(min(count, len(self.on_the_way))):
            frame = self.on_the_way.pop(0)
            self._carry_out(self.client.received(json.dumps(frame), 0))

    @precondition(lambda self: self.on_the_way)
    @rule(data=st.data())
    def a_frame_comes_twice(self, data: st.DataObject) -> None:
        at = data.draw(st.integers(0, len(self.on_the_way) - 1))
        again = data.draw(st.integers(at, len(self.on_the_way)))
        self.on_the_way.insert(again, self.on_the_way[at])

    @precondition(lambda self: self.on_the_way)
    @rule(data=st.data())
    def a_frame_is_lost(self, data: st.DataObject) -> None:
        at = data.draw(st.integers(0, len(self.on_the_way) - 1))
        # Answers to a subscription are not lost: the client would rightly wait for them.
        if self.on_the_way[at]["type"] != "snapshot" and "replayed" not in self.on_the_way[at]:
            del self.on_the_way[at]

    @precondition(lambda self: len(self.on_the_way) > 1)
    @rule(data=st.data())
    def two_frames_are_swapped(self, data: st.DataObject) -> None:
        at = data.draw(st.integers(0, len(self.on_the_way) - 2))
        self.on_the_way[at], self.on_the_way[at + 1] = self.on_the_way[at + 1], self.on_the_way[at]

    @precondition(lambda self: self.is_connected)
    @rule()
    def the_connection_is_cut(self) -> None:
        self.on_the_way.clear()
        self.is_connected = self.is_subscribed = False
        assert self.client.closed(1006, "", 0).retry_in_s is not None

    @precondition(lambda self: not self.is_connected)
    @rule()
    def connect(self) -> None:
        self.is_connected = True
        self.client.connecting()
        self._carry_out(self.client.opened())

    # ------------------------------------------------------------------------------------------------------ checks

    def check(self, update: ItemUpdate) -> None:
        before = self.seen[-1] if self.seen else None
        self.seen.append(update)
        # What is shown is what was decided, never made of two versions.
        assert update.price == Decimal(self.prices[update.version])
        if before is None:
            return
        assert update.version > before.version, f"{update.version} after {before.version}"
        is_next = update.version == (before.version[0], before.version[1] + 1)
        assert update.complete == is_next
        assert before.price is not None
        # Where the void itself went astray, the snapshot after it shows what the void left.
        if is_next and update.version not in self.voids:
            assert update.price >= before.price

    @invariant()
    def the_register_is_the_last_update(self) -> None:
        if self.seen:
            assert self.client.version(ITEM) == self.seen[-1].version
            view = self.client.item(ITEM)
            assert view is not None
            assert (view["epoch"], view["seq"]) == self.seen[-1].version

    def teardown(self) -> None:
        """Once the network behaves, the client comes to know the newest state: one more event and it is there."""
        if not self.is_connected:
            self.connect()
        while self.on_the_way:
            self.frames_arrive(8)
        self.the_connection_is_cut()
        self.connect()
        while self.on_the_way:
            self.frames_arrive(8)
        assert self.seen[-1].version == self.version
        self.something_happens("bid", 1)
        self.frames_arrive(8)
        assert self.seen[-1].version == self.version
        assert self.seen[-1].complete


ClientModel.TestCase.settings = settings(max_examples=examples(150), stateful_step_count=40)
TestClientModel = ClientModel.TestCase


class OrderedModel(ClientModel):
    """The same world with a network that keeps its word (TCP): with every event asked for, none is ever left out."""

    a_frame_comes_twice = None  # type: ignore[assignment]
    a_frame_is_lost = None  # type: ignore[assignment]
    two_frames_are_swapped = None  # type: ignore[assignment]
    frames_that_wait_are_merged = None  # type: ignore[assignment]

    def check(self, update: ItemUpdate) -> None:
        super().check(update)
        assert update.complete or update.kind == "snapshot"


OrderedModel.TestCase.settings = settings(max_examples=examples(100), stateful_step_count=40)
TestOrderedModel = OrderedModel.TestCase
