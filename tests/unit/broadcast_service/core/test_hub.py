"""Subscriptions and their effects."""

from __future__ import annotations

import pytest

from broadcast_service.core.effects import Load, NotFound
from broadcast_service.core.feed import Recovery
from broadcast_service.core.frames import Version
from broadcast_service.core.hub import TooManyItems
from tests.unit.broadcast_service.builders import ITEM, bid, bids, content, item, shown
from tests.unit.broadcast_service.hubs import new_hub, only_sends, sends


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
    assert hub.history_wanted(ITEM) == {1: 1}
    effects = hub.loaded(ITEM, Recovery(item(4), bids(2, 4)), 0.0)
    assert sends(effects) == [([("bid", 2), ("bid", 3), ("bid", 4)], {"ann"})]


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
        assert hub.history_wanted(ITEM) == {1: 2}
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

    def test_who_comes_back_from_another_epoch_takes_nothing_from_the_others(self) -> None:
        """One that is over, or that never was."""
        hub = new_hub()
        for viewer, since in (("ann", (1, 500)), ("bob", (2, 17)), ("cyd", (2, 15)), ("eve", (99, 1))):
            hub.subscribe(viewer, ITEM, since)
        assert hub.history_wanted(ITEM) == {1: 500, 2: 15, 99: 1}

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
    """A load began for a viewer who missed less, or nothing, so its answer lacks what the second viewer missed."""
    hub = new_hub()
    hub.subscribe("ann", ITEM, first_since)
    assert hub.history_wanted(ITEM) == ({} if first_since is None else dict([first_since]))
    assert hub.subscribe("bob", ITEM, (1, 2)) == [Load(ITEM)]
    begun = Recovery(item(5), tuple(bids(5, 5)) if first_since else ())
    [(_, joined)] = sends(hub.loaded(ITEM, begun, 0.0, again=True))
    assert joined == {"ann"}
    assert hub.history_wanted(ITEM) == {1: 2}
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


def test_who_comes_back_to_the_same_place_shares_the_frames() -> None:
    """After a restart that is nearly everybody: encoding for each of them would take minutes."""
    hub = new_hub(ring=0)
    for number in range(50):
        hub.subscribe(f"viewer-{number}", ITEM, (1, 2 + number % 2))
    hub.history_wanted(ITEM)
    first, second = only_sends(hub.loaded(ITEM, Recovery(item(9), bids(3, 9)), 0.0))
    assert len(first.viewers) == len(second.viewers) == 25
    assert first.frames[-1] is second.frames[-1]
