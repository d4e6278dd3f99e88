"""Frames at a bounded rate, and standings that are told together with the frames that caused them."""

from __future__ import annotations

from broadcast_service.core.effects import Effect, Joined, Send, StandingChanged, Wake
from broadcast_service.core.feed import Recovery
from broadcast_service.core.hub import Hub
from tests.unit.broadcast_service.builders import ITEM, bid, bids, closed, item
from tests.unit.broadcast_service.hubs import Viewer, new_hub, only_sends, sends


class TestConflation:
    def conflating(self, *full: Viewer) -> Hub[Viewer]:
        """Ann gets ten frames a second, others every event; the first bid was just shown."""
        hub = new_hub(rate_max=10)
        hub.subscribe("ann", ITEM)
        hub.loaded(ITEM, Recovery(item(0)), 4.0)
        for viewer in full:
            hub.subscribe(viewer, ITEM, full=True)
        hub.publish(ITEM, bids(1, 1), 5.0)
        return hub

    def test_what_waits_goes_out_when_the_hub_is_woken(self) -> None:
        hub = self.conflating()
        assert hub.publish(ITEM, bids(2, 2), 5.01) == [Wake(ITEM, 5.1)]
        assert hub.publish(ITEM, bids(3, 3), 5.02) == [], "it is woken once"
        assert hub.flush(ITEM, 5.05) == [Wake(ITEM, 5.1)], "too early"
        assert sends(hub.flush(ITEM, 5.1)) == [([("state", 3)], {"ann"})]
        assert hub.flush(ITEM, 5.2) == []
        assert hub.flush("nobody-watches-this", 5.2) == []

    def test_who_asked_for_everything_gets_it_at_once(self) -> None:
        hub = self.conflating("bob")
        first, wake = hub.publish(ITEM, bids(2, 3), 5.01)
        assert sends([first]) == [([("bid", 2), ("bid", 3)], {"bob"})]
        assert isinstance(wake, Wake)
        assert sends(hub.flush(ITEM, 5.1)) == [([("state", 3)], {"ann"})]

    def test_a_newcomer_does_not_get_what_its_snapshot_has(self) -> None:
        hub = self.conflating()
        hub.publish(ITEM, bids(2, 3), 5.01)
        assert sends(hub.subscribe("bob", ITEM)) == [([("snapshot", 3)], {"bob"})]
        assert sends(hub.subscribe("cid", ITEM, (1, 1))) == [([("resumed", 3), ("bid", 2), ("bid", 3)], {"cid"})]
        hub.publish(ITEM, bids(4, 4), 5.02)
        assert sends(hub.flush(ITEM, 5.1)) == [([("state", 4)], {"ann"}), ([("bid", 4)], {"bob", "cid"})]

    def test_changing_over_while_something_waits(self) -> None:
        hub = self.conflating("bob")
        hub.publish(ITEM, bids(2, 3), 5.01)
        assert sends(hub.subscribe("ann", ITEM, (1, 1), full=True)) == [
            ([("resumed", 3), ("bid", 2), ("bid", 3)], {"ann"})
        ]
        assert sends(hub.subscribe("bob", ITEM, (1, 3))) == [([("resumed", 3)], {"bob"})]
        assert hub.subscribers(ITEM) == 2
        assert sends(hub.flush(ITEM, 5.1)) == []
        first, second = only_sends(hub.publish(ITEM, bids(4, 4), 6.0))
        assert (first.viewers, second.viewers) == ({"ann": None}, {"bob": None})

    def test_leaving_and_coming_back_while_something_waits(self) -> None:
        hub = self.conflating("bob")
        hub.publish(ITEM, bids(2, 3), 5.01)
        hub.unsubscribe("ann", ITEM)
        assert sends(hub.subscribe("ann", ITEM)) == [([("snapshot", 3)], {"ann"})]
        assert sends(hub.flush(ITEM, 5.1)) == []

    def test_many_missed_events_are_one_state(self) -> None:
        hub = self.conflating("bob")
        hub.publish(ITEM, bids(9, 9), 6.0)
        assert sends(hub.loaded(ITEM, Recovery(item(9), bids(2, 9)), 6.1)) == [
            ([("bid", seq) for seq in range(2, 10)], {"bob"}),
            ([("state", 9)], {"ann"}),
        ]


class TestStandings:
    def changed(self, effects: list[Effect[Viewer]]) -> list[frozenset[str]]:
        return [effect.users for effect in effects if isinstance(effect, StandingChanged)]

    def watched(self, rate_max: float = 0) -> Hub[Viewer]:
        hub = new_hub(rate_max=rate_max)
        hub.subscribe("ann", ITEM)
        hub.loaded(ITEM, Recovery(item(1)), 0.0)
        return hub

    def test_a_bid_concerns_who_led_who_leads_and_who_bid(self) -> None:
        hub = self.watched()
        assert hub.leader_of(ITEM) == "user-1"
        effects = hub.publish(ITEM, bids(2, 3), 0.0)
        assert isinstance(effects[0], Send)
        assert self.changed(effects) == [frozenset({"user-1", "user-2", "user-3"})]
        assert hub.leader_of(ITEM) == "user-3"
        state = hub.state_of(ITEM)
        assert state is not None
        assert (state.state.price, state.state.leader, state.version) == (400, "user-3", (1, 3))

    def test_other_events_and_snapshots_concern_everybody(self) -> None:
        assert self.changed(self.watched().publish(ITEM, [bid(2), closed(3)], 0.0)) == [frozenset()]
        assert self.changed(self.watched().loaded(ITEM, Recovery(item(5)), 0.0)) == [frozenset()]

    def test_bidders_are_told_with_the_frames_that_concern_them(self) -> None:
        hub = self.watched(rate_max=10)
        assert self.changed(hub.publish(ITEM, bids(2, 2), 5.0)) == [frozenset({"user-1", "user-2"})]
        assert self.changed(hub.publish(ITEM, bids(3, 3), 5.01)) == []
        assert self.changed(hub.publish(ITEM, bids(4, 4), 5.02)) == []
        assert self.changed(hub.flush(ITEM, 5.1)) == [frozenset({"user-2", "user-3", "user-4"})]
        assert self.changed(hub.flush(ITEM, 5.2)) == []

    def test_a_raised_maximum_concerns_the_leader_alone(self) -> None:
        hub = self.watched()
        assert hub.maximum_raised(ITEM) == [StandingChanged(ITEM, frozenset({"user-1"}))]
        assert hub.maximum_raised("nobody-watches-this") == []
        nobody_leads = new_hub()
        nobody_leads.subscribe("ann", ITEM)
        nobody_leads.loaded(ITEM, Recovery(item(0)), 0.0)
        assert nobody_leads.maximum_raised(ITEM) == []

    def test_it_is_told_with_what_waits_for_the_viewers(self) -> None:
        hub = self.watched(rate_max=10)
        hub.publish(ITEM, bids(2, 2), 5.0)
        hub.publish(ITEM, bids(3, 3), 5.01)
        assert hub.maximum_raised(ITEM) == []
        assert self.changed(hub.flush(ITEM, 5.1)) == [frozenset({"user-2", "user-3"})]

    def test_one_that_was_raised_while_no_message_came_is_looked_up(self) -> None:
        hub = self.watched()
        hub.stream_down(1.0)
        hub.stream_up()
        hub.history_wanted(ITEM)
        assert self.changed(hub.loaded(ITEM, Recovery(item(1)), 2.0)) == [frozenset({"user-1"})]

    def test_who_joins_is_named_after_the_first_frame(self) -> None:
        hub = self.watched()
        first, joined = hub.subscribe("bob", ITEM)
        assert isinstance(first, Send)
        assert joined == Joined(ITEM, ["bob"])

    def test_nothing_is_known_of_an_item_that_nobody_watches(self) -> None:
        hub = new_hub()
        assert hub.state_of(ITEM) is None
        assert hub.leader_of(ITEM) is None
        hub.subscribe("ann", ITEM)
        assert hub.state_of(ITEM) is None
        assert hub.leader_of(ITEM) is None
        assert set(hub.items_of("ann")) == {ITEM}
        assert not hub.items_of("bob")
