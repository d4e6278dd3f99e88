"""Subscriptions and their effects."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from broadcast_service.effects import Effect, Joined, Load, NotFound, Send, StandingChanged, Wake
from broadcast_service.feed import ItemFeed, Recovery
from broadcast_service.frames import Version
from broadcast_service.hub import Hub, TooManyItems
from tests.unit.broadcast_service.builders import ITEM, bid, bids, closed, content, item, shown

Viewer = str


def new_hub(*, open_catalogue: bool = False, items_max: int = 10, ring: int = 32, rate_max: float = 0) -> Hub[Viewer]:
    hub: Hub[Viewer] = Hub(
        open_catalogue=open_catalogue,
        items_per_viewer_max=items_max,
        rate_max=rate_max,
        make_feed=lambda item_id: ItemFeed(item_id, ring_events_max=ring),
    )
    hub.stream_up()
    return hub


def only_sends(effects: Sequence[Effect[Viewer]]) -> list[Send[Viewer]]:
    """What is sent; fails where something is to be loaded or to be done later."""
    assert not any(isinstance(effect, Load | NotFound | Wake) for effect in effects), effects
    return [effect for effect in effects if isinstance(effect, Send)]


def sends(effects: Sequence[Effect[Viewer]]) -> list[tuple[list[tuple[str, int]], set[Viewer]]]:
    """What is sent to whom, as types and seqs."""
    return [(shown(send.frames), set(send.viewers)) for send in only_sends(effects)]


def test_the_first_viewer_waits_for_the_snapshot_and_the_next_one_needs_none() -> None:
    hub = new_hub()
    assert hub.subscribe("ann", ITEM) == [Load(ITEM)]
    assert sends(hub.loaded(ITEM, Recovery(item(3)), 0.0)) == [([("snapshot", 3)], {"ann"})]
    assert sends(hub.subscribe("bob", ITEM)) == [([("snapshot", 3)], {"bob"})]


def test_all_viewers_get_the_same_frame_object() -> None:
    hub = new_hub()
    viewers = [f"viewer-{number}" for number in range(50)]
    for viewer in viewers:
        hub.subscribe(viewer, ITEM)
    [joined] = only_sends(hub.loaded(ITEM, Recovery(item(0)), 0.0))
    assert set(joined.viewers) == set(viewers)
    assert len(joined.frames) == 1
    [event] = only_sends(hub.publish(ITEM, [bid(1)], 0.0))
    assert set(event.viewers) == set(viewers)
    assert len(event.frames) == 1


def test_events_before_the_snapshot_are_neither_lost_nor_doubled() -> None:
    hub = new_hub()
    hub.subscribe("ann", ITEM)
    assert hub.publish(ITEM, bids(2, 4), 0.0) == []
    assert sends(hub.loaded(ITEM, Recovery(item(3)), 0.0)) == [([("snapshot", 4)], {"ann"})]
    assert sends(hub.publish(ITEM, [bid(4), bid(5)], 0.0)) == [([("bid", 5)], {"ann"})]


def test_events_of_items_that_nobody_watches_are_ignored() -> None:
    hub = new_hub()
    assert not hub.watches(ITEM)
    assert hub.publish(ITEM, [bid(1)], 0.0) == []
    assert hub.unreadable(ITEM) == []


def test_an_item_is_forgotten_with_its_last_viewer() -> None:
    hub = new_hub()
    for viewer in ("ann", "bob"):
        hub.subscribe(viewer, ITEM)
    hub.loaded(ITEM, Recovery(item(1)), 0.0)
    hub.leave("ann")
    assert hub.subscribers(ITEM) == 1
    assert hub.unsubscribe("bob", ITEM)
    assert not hub.watches(ITEM)
    assert hub.item_count == 0
    assert hub.loaded(ITEM, Recovery(item(2)), 0.0) == [], "an answer that comes too late"
    assert hub.missing(ITEM, 0.0) == []
    assert hub.load_failed(ITEM) == []


def test_unsubscribing_ends_the_frames() -> None:
    hub = new_hub()
    for viewer in ("ann", "bob"):
        hub.subscribe(viewer, ITEM)
    hub.loaded(ITEM, Recovery(item(0)), 0.0)
    assert hub.unsubscribe("ann", ITEM)
    assert not hub.unsubscribe("ann", ITEM)
    assert sends(hub.publish(ITEM, [bid(1)], 0.0)) == [([("bid", 1)], {"bob"})]


def test_a_gap_asks_for_a_load_and_what_was_missed_goes_to_everybody() -> None:
    hub = new_hub()
    hub.subscribe("ann", ITEM)
    hub.loaded(ITEM, Recovery(item(1)), 0.0)
    assert hub.publish(ITEM, [bid(4)], 0.0) == [Load(ITEM)]
    assert hub.history_wanted(ITEM) == (1, 1)
    effects = hub.loaded(ITEM, Recovery(item(4), bids(2, 4)), 0.0)
    assert sends(effects) == [([("bid", 2), ("bid", 3), ("bid", 4)], {"ann"})]


def test_the_stream_coming_back_has_every_item_looked_at() -> None:
    hub = new_hub()
    for item_id in ("a", "b"):
        hub.subscribe("ann", item_id)
        hub.loaded(item_id, Recovery(item(1, item_id=item_id)), 0.0)
    hub.stream_down(0.0)
    assert hub.stream_up() == [Load("a"), Load("b")]


def test_without_the_stream_a_newcomer_gets_the_state_of_redis_and_so_does_everybody_else() -> None:
    hub = new_hub()
    hub.subscribe("ann", ITEM)
    hub.loaded(ITEM, Recovery(item(1)), 0.0)
    assert sends(hub.stream_down(0.0)) == [([("stale", 1)], {"ann"})]
    assert hub.subscribe("bob", ITEM) == [Load(ITEM)]
    effects = hub.loaded(ITEM, Recovery(item(2), bids(2, 2)), 0.0)
    assert sends(effects) == [([("bid", 2)], {"ann"}), ([("snapshot", 2), ("stale", 2)], {"bob"})]


def test_without_stream_and_redis_a_newcomer_gets_what_is_known_here() -> None:
    hub = new_hub()
    hub.subscribe("ann", ITEM)
    assert hub.load_failed(ITEM) == [], "nothing is known yet: the viewer waits"
    hub.loaded(ITEM, Recovery(item(1)), 0.0)
    hub.stream_down(0.0)
    hub.subscribe("bob", ITEM)
    hub.subscribe("eve", ITEM, (1, 2))
    assert sends(hub.load_failed(ITEM)) == [([("snapshot", 1), ("stale", 1)], {"bob"})], (
        "eve has seen more than this already"
    )
    assert sends(hub.loaded(ITEM, Recovery(item(2)), 0.0)) == [
        ([("snapshot", 2)], {"ann", "bob"}),
        ([("resumed", 2), ("stale", 2)], {"eve"}),
    ]


class TestUnknownItem:
    def test_is_refused(self) -> None:
        hub = new_hub()
        hub.subscribe("ann", ITEM)
        [effect] = hub.missing(ITEM, 0.0)
        assert isinstance(effect, NotFound)
        assert list(effect.viewers) == ["ann"]
        assert not hub.watches(ITEM)
        assert hub.subscription_count == 0

    def test_may_be_watched_in_an_open_catalogue(self) -> None:
        hub = new_hub(open_catalogue=True)
        hub.subscribe("ann", ITEM)
        assert sends(hub.missing(ITEM, 0.0)) == [([("snapshot", -1)], {"ann"})]
        assert hub.subscribe("bob", ITEM) == [Load(ITEM)], "it may exist by now"
        assert sends(hub.missing(ITEM, 0.0)) == [([("snapshot", -1)], {"bob"})]
        assert hub.publish(ITEM, [bid(1)], 0.0) == [Load(ITEM)]
        assert sends(hub.loaded(ITEM, Recovery(item(1)), 0.0)) == [([("snapshot", 1)], {"ann", "bob"})]

    def test_one_that_was_known_is_not_refused(self) -> None:
        hub = new_hub()
        hub.subscribe("ann", ITEM)
        hub.loaded(ITEM, Recovery(item(1)), 0.0)
        hub.stream_down(0.0)
        hub.subscribe("bob", ITEM)
        assert sends(hub.missing(ITEM, 0.0)) == [([("snapshot", 1), ("stale", 1)], {"bob"})]


class TestResume:
    def test_out_of_memory(self) -> None:
        hub = new_hub()
        hub.subscribe("ann", ITEM)
        hub.loaded(ITEM, Recovery(item(1)), 0.0)
        hub.publish(ITEM, bids(2, 4), 0.0)
        [effect] = only_sends(hub.subscribe("bob", ITEM, (1, 2)))
        assert shown(effect.frames) == [("resumed", 4), ("bid", 3), ("bid", 4)]
        marker = content(effect.frames[0])
        assert (marker["recovered"], marker["replayed"], marker["since"]) == (True, 2, "1:2")

    def test_out_of_redis(self) -> None:
        hub = new_hub()
        assert hub.subscribe("bob", ITEM, (1, 2)) == [Load(ITEM)]
        assert hub.history_wanted(ITEM) == (1, 2)
        effects = hub.loaded(ITEM, Recovery(item(4), bids(3, 4)), 0.0)
        assert sends(effects) == [([("resumed", 4), ("bid", 3), ("bid", 4)], {"bob"})]
        assert sends(hub.publish(ITEM, [bid(5)], 0.0)) == [([("bid", 5)], {"bob"})]

    def test_events_during_the_load_are_part_of_the_replay(self) -> None:
        hub = new_hub(ring=2)
        hub.subscribe("ann", ITEM)
        hub.loaded(ITEM, Recovery(item(5)), 0.0)
        assert hub.subscribe("bob", ITEM, (1, 2)) == [Load(ITEM)]
        assert sends(hub.publish(ITEM, [bid(6)], 0.0)) == [([("bid", 6)], {"ann"})]
        effects = hub.loaded(ITEM, Recovery(item(5), bids(3, 5)), 0.0)
        assert sends(effects) == [([("resumed", 6), *(("bid", seq) for seq in range(3, 7))], {"bob"})]

    def test_what_cannot_be_had_any_more_is_a_snapshot_that_says_so(self) -> None:
        hub = new_hub()
        hub.subscribe("bob", ITEM, (1, 2))
        [effect] = only_sends(hub.loaded(ITEM, Recovery(item(900), bids(880, 900)), 0.0))
        assert shown(effect.frames) == [("snapshot", 900)]
        assert content(effect.frames[0])["recovered"] is False

    def test_an_epoch_that_is_over_needs_no_load(self) -> None:
        hub = new_hub()
        hub.subscribe("ann", ITEM)
        hub.loaded(ITEM, Recovery(item(3, epoch=2)), 0.0)
        [effect] = only_sends(hub.subscribe("bob", ITEM, (1, 2)))
        assert content(effect.frames[0])["recovered"] is False

    def test_a_viewer_from_the_future_waits_for_redis_and_sees_no_older_price(self) -> None:
        hub = new_hub()
        hub.subscribe("ann", ITEM)
        hub.loaded(ITEM, Recovery(item(3)), 0.0)
        assert hub.subscribe("bob", ITEM, (1, 5)) == [Load(ITEM)]
        assert sends(hub.loaded(ITEM, Recovery(item(3)), 0.0, again=True)) == []
        effects = hub.loaded(ITEM, Recovery(item(6), bids(4, 6)), 0.0)
        assert sends(effects) == [
            ([("bid", 4), ("bid", 5), ("bid", 6)], {"ann"}),
            ([("resumed", 6), ("bid", 6)], {"bob"}),
        ]


@pytest.mark.parametrize("first_since", [None, (1, 4)])
def test_who_comes_back_during_a_load_that_reads_too_little_waits_for_the_next(first_since: Version | None) -> None:
    """A load was begun for a viewer who missed less, or nothing; its answer lacks what the second viewer missed."""
    hub = new_hub()
    hub.subscribe("ann", ITEM, first_since)
    assert hub.history_wanted(ITEM) == first_since
    assert hub.subscribe("bob", ITEM, (1, 2)) == [Load(ITEM)]
    begun = Recovery(item(5), tuple(bids(5, 5)) if first_since else ())
    [(_, joined)] = sends(hub.loaded(ITEM, begun, 0.0, again=True))
    assert joined == {"ann"}
    assert hub.history_wanted(ITEM) == (1, 2)
    [(frames, joined)] = sends(hub.loaded(ITEM, Recovery(item(5), tuple(bids(3, 5))), 0.0))
    assert joined == {"bob"}
    assert frames == [("resumed", 5), ("bid", 3), ("bid", 4), ("bid", 5)]


def test_subscribing_again_sends_a_new_first_frame_and_counts_once() -> None:
    hub = new_hub()
    hub.subscribe("ann", ITEM)
    hub.loaded(ITEM, Recovery(item(1)), 0.0)
    assert sends(hub.subscribe("ann", ITEM)) == [([("snapshot", 1)], {"ann"})]
    assert hub.subscribers(ITEM) == 1
    assert sends(hub.publish(ITEM, [bid(2)], 0.0)) == [([("bid", 2)], {"ann"})]


def test_subscribing_again_with_a_load_under_way_stops_the_frames_until_it_is_done() -> None:
    hub = new_hub(ring=0)
    hub.subscribe("ann", ITEM)
    hub.loaded(ITEM, Recovery(item(3)), 0.0)
    assert hub.subscribe("ann", ITEM, (1, 2)) == [Load(ITEM)]
    assert hub.publish(ITEM, [bid(4)], 0.0) == []
    assert sends(hub.loaded(ITEM, Recovery(item(4), bids(3, 4)), 0.0)) == [
        ([("resumed", 4), ("bid", 3), ("bid", 4)], {"ann"})
    ]


def test_items_per_viewer_are_bounded() -> None:
    hub = new_hub(items_max=2)
    hub.subscribe("ann", "a")
    hub.subscribe("ann", "b")
    with pytest.raises(TooManyItems, match="at most 2"):
        hub.subscribe("ann", "c")
    assert not hub.watches("c")
    assert hub.subscribe("ann", "b") == [Load("b")], "one that it follows already is not one more"
    hub.unsubscribe("ann", "a")
    assert hub.subscribe("ann", "c") == [Load("c")]


def test_something_unreadable_has_the_item_looked_at() -> None:
    hub = new_hub()
    hub.subscribe("ann", ITEM)
    assert hub.unreadable(ITEM) == [Load(ITEM)]


class TestConflation:
    def conflating(self, *full: Viewer) -> Hub[Viewer]:
        """Ann gets ten frames a second, others everything; the first bid was just shown."""
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


class TestStale:
    def lost(self) -> Hub[Viewer]:
        hub = new_hub(rate_max=10)
        hub.subscribe("ann", ITEM)
        hub.subscribe("bob", ITEM, full=True)
        hub.loaded(ITEM, Recovery(item(1)), 4.0)
        hub.stream_down(5.0)
        return hub

    def test_viewers_are_told_after_what_waited_for_them(self) -> None:
        hub = new_hub(rate_max=10)
        hub.subscribe("ann", ITEM)
        hub.loaded(ITEM, Recovery(item(0)), 4.0)
        hub.publish(ITEM, bids(1, 1), 5.0)
        hub.publish(ITEM, bids(2, 3), 5.01)
        assert sends(hub.stream_down(5.02)) == [([("state", 3)], {"ann"}), ([("stale", 3)], {"ann"})]
        assert hub.stream_down(5.03) == [], "once"

    def test_they_are_told_again_when_all_that_was_missed_is_shown(self) -> None:
        hub = self.lost()
        assert hub.stream_up() == [Load(ITEM)]
        hub.history_wanted(ITEM)
        effects = only_sends(hub.loaded(ITEM, Recovery(item(9), bids(2, 9)), 9.0))
        assert sends(effects) == [
            ([("bid", seq) for seq in range(2, 10)], {"bob"}),
            ([("state", 9)], {"ann"}),
            ([("stale", 9)], {"bob"}),
            ([("stale", 9)], {"ann"}),
        ]
        assert [content(send.frames[0])["stale"] for send in effects[2:]] == [False, False]
        assert sends(hub.publish(ITEM, bids(10, 10), 9.5))[0] == ([("bid", 10)], {"bob"})

    def test_and_after_what_waits_for_them(self) -> None:
        hub = self.lost()
        hub.unsubscribe("bob", ITEM)
        hub.stream_up()
        hub.history_wanted(ITEM)
        assert sends(hub.publish(ITEM, bids(2, 2), 9.0)) == [([("bid", 2)], {"ann"})]
        assert hub.publish(ITEM, bids(3, 4), 9.01) == [Wake(ITEM, 9.1)]
        assert sends(hub.loaded(ITEM, Recovery(item(4), bids(2, 4)), 9.02)) == [
            ([("state", 4)], {"ann"}),
            ([("stale", 4)], {"ann"}),
        ]

    def test_not_while_something_is_missing_still(self) -> None:
        hub = self.lost()
        hub.stream_up()
        hub.history_wanted(ITEM)
        assert hub.publish(ITEM, bids(4, 4), 9.0) == [Load(ITEM)]
        effects = hub.loaded(ITEM, Recovery(item(2), bids(2, 2)), 9.1)
        assert effects[-1] == Load(ITEM)
        assert ("stale", 2) not in [frame for send in effects if isinstance(send, Send) for frame in shown(send.frames)]
        hub.history_wanted(ITEM)
        told = sends(hub.loaded(ITEM, Recovery(item(4), bids(2, 4)), 9.5))
        assert told[-1][0] == [("stale", 4)]

    def test_a_read_that_began_before_the_stream_was_back_is_not_enough(self) -> None:
        hub = self.lost()
        hub.subscribe("cid", ITEM)
        hub.history_wanted(ITEM)
        hub.stream_up()
        assert sends(hub.loaded(ITEM, Recovery(item(1)), 9.0, again=True)) == [
            ([("snapshot", 1), ("stale", 1)], {"cid"})
        ]
        hub.history_wanted(ITEM)
        told = sends(hub.loaded(ITEM, Recovery(item(1)), 9.1))
        assert told == [([("stale", 1)], {"bob"}), ([("stale", 1)], {"ann", "cid"})]

    def test_nor_is_one_after_which_the_stream_was_lost_again(self) -> None:
        hub = self.lost()
        hub.stream_up()
        hub.history_wanted(ITEM)
        hub.stream_down(8.0)
        assert hub.loaded(ITEM, Recovery(item(1)), 9.0) == []
        hub.stream_up()
        assert hub.loaded(ITEM, Recovery(item(1)), 9.1) == [], "read before"

    def test_who_comes_while_the_item_is_being_looked_at_waits_for_the_answer(self) -> None:
        hub = self.lost()
        hub.stream_up()
        assert hub.subscribe("cid", ITEM) == [Load(ITEM)], "what is known here may be old"
        hub.history_wanted(ITEM)
        told = sends(hub.loaded(ITEM, Recovery(item(2), bids(2, 2)), 9.0))
        assert told[-1] == ([("snapshot", 2)], {"cid"}), "no word of stale to somebody who never was"

    def test_the_first_viewers_before_there_ever_was_a_stream(self) -> None:
        hub: Hub[Viewer] = Hub()
        hub.subscribe("ann", ITEM)
        hub.history_wanted(ITEM)
        assert sends(hub.loaded(ITEM, Recovery(item(1)), 0.0)) == [([("snapshot", 1), ("stale", 1)], {"ann"})]
        hub.stream_up()
        hub.history_wanted(ITEM)
        assert sends(hub.loaded(ITEM, Recovery(item(1)), 0.0)) == [([("stale", 1)], {"ann"})]

    def test_an_item_that_does_not_exist_yet(self) -> None:
        hub: Hub[Viewer] = Hub(open_catalogue=True)
        hub.subscribe("ann", ITEM)
        hub.history_wanted(ITEM)
        assert sends(hub.missing(ITEM, 0.0)) == [([("snapshot", -1), ("stale", -1)], {"ann"})]
        hub.stream_up()
        hub.history_wanted(ITEM)
        assert sends(hub.missing(ITEM, 0.0)) == [([("stale", -1)], {"ann"})]


def test_the_number_of_viewers_is_told_where_it_changed_and_to_newcomers() -> None:
    hub = new_hub()
    hub.subscribe("ann", ITEM)
    hub.subscribe("bob", ITEM, full=True)
    hub.loaded(ITEM, Recovery(item(1)), 0.0)
    assert dict(hub.counts()) == {ITEM: 2}
    told = only_sends(hub.tell_viewers(ITEM, 2, exact=True))
    assert {viewer for send in told for viewer in send.viewers} == {"ann", "bob"}
    assert content(told[0].frames[0]) == {"type": "viewers", "item_id": ITEM, "viewers": 2, "exact": True}
    assert hub.tell_viewers(ITEM, 2, exact=True) == []
    assert len(hub.tell_viewers(ITEM, 2, exact=False)) == 2
    [joined] = only_sends(hub.subscribe("cid", ITEM))
    assert [content(frame)["type"] for frame in joined.frames] == ["snapshot", "viewers"]
    assert hub.tell_viewers("nobody-watches-this", 0, exact=True) == []


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


def test_who_comes_back_to_the_same_place_shares_the_frames() -> None:
    """After a restart that is nearly everybody: encoding for each of them would take minutes."""
    hub = new_hub(ring=0)
    for number in range(50):
        hub.subscribe(f"viewer-{number}", ITEM, (1, 2 + number % 2))
    hub.history_wanted(ITEM)
    first, second = only_sends(hub.loaded(ITEM, Recovery(item(9), bids(3, 9)), 0.0))
    assert len(first.viewers) == len(second.viewers) == 25
    assert first.frames[-1] is second.frames[-1]
