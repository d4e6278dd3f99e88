"""Subscriptions and their effects."""

from __future__ import annotations

import pytest

from broadcast_service.feed import ItemFeed, Recovery
from broadcast_service.frames import Version
from broadcast_service.hub import Effect, Hub, Load, NotFound, Send, TooManyItems
from tests.unit.broadcast_service.builders import ITEM, bid, bids, content, item, shown

Viewer = str


def new_hub(*, open_catalogue: bool = False, items_max: int = 10, ring: int = 32) -> Hub[Viewer]:
    hub: Hub[Viewer] = Hub(
        open_catalogue=open_catalogue,
        items_per_viewer_max=items_max,
        make_feed=lambda item_id: ItemFeed(item_id, ring_events_max=ring),
    )
    hub.stream_up()
    return hub


def sends(effects: list[Effect[Viewer]]) -> list[tuple[list[tuple[str, int]], set[Viewer]]]:
    """What is sent to whom; fails where there is anything else."""
    found = []
    for effect in effects:
        assert isinstance(effect, Send)
        found.append((shown(effect.frames), set(effect.viewers)))
    return found


def test_the_first_viewer_waits_for_the_snapshot_and_the_next_one_needs_none() -> None:
    hub = new_hub()
    assert hub.subscribe("ann", ITEM) == [Load(ITEM)]
    assert sends(hub.loaded(ITEM, Recovery(item(3)))) == [([("snapshot", 3)], {"ann"})]
    assert sends(hub.subscribe("bob", ITEM)) == [([("snapshot", 3)], {"bob"})]


def test_all_viewers_get_the_same_frame_object() -> None:
    hub = new_hub()
    viewers = [f"viewer-{number}" for number in range(50)]
    for viewer in viewers:
        hub.subscribe(viewer, ITEM)
    [joined] = hub.loaded(ITEM, Recovery(item(0)))
    assert isinstance(joined, Send)
    assert set(joined.viewers) == set(viewers)
    assert len(joined.frames) == 1
    [event] = hub.publish(ITEM, [bid(1)])
    assert isinstance(event, Send)
    assert set(event.viewers) == set(viewers)
    assert len(event.frames) == 1


def test_events_before_the_snapshot_are_neither_lost_nor_doubled() -> None:
    hub = new_hub()
    hub.subscribe("ann", ITEM)
    assert hub.publish(ITEM, bids(2, 4)) == []
    assert sends(hub.loaded(ITEM, Recovery(item(3)))) == [([("snapshot", 4)], {"ann"})]
    assert sends(hub.publish(ITEM, [bid(4), bid(5)])) == [([("bid", 5)], {"ann"})]


def test_events_of_items_that_nobody_watches_are_ignored() -> None:
    hub = new_hub()
    assert not hub.watches(ITEM)
    assert hub.publish(ITEM, [bid(1)]) == []
    assert hub.unreadable(ITEM) == []


def test_an_item_is_forgotten_with_its_last_viewer() -> None:
    hub = new_hub()
    for viewer in ("ann", "bob"):
        hub.subscribe(viewer, ITEM)
    hub.loaded(ITEM, Recovery(item(1)))
    hub.leave("ann")
    assert hub.subscribers(ITEM) == 1
    assert hub.unsubscribe("bob", ITEM)
    assert not hub.watches(ITEM)
    assert hub.item_count == 0
    assert hub.loaded(ITEM, Recovery(item(2))) == [], "an answer that comes too late"
    assert hub.missing(ITEM) == []
    assert hub.load_failed(ITEM) == []


def test_unsubscribing_ends_the_frames() -> None:
    hub = new_hub()
    for viewer in ("ann", "bob"):
        hub.subscribe(viewer, ITEM)
    hub.loaded(ITEM, Recovery(item(0)))
    assert hub.unsubscribe("ann", ITEM)
    assert not hub.unsubscribe("ann", ITEM)
    assert sends(hub.publish(ITEM, [bid(1)])) == [([("bid", 1)], {"bob"})]


def test_a_gap_asks_for_a_load_and_what_was_missed_goes_to_everybody() -> None:
    hub = new_hub()
    hub.subscribe("ann", ITEM)
    hub.loaded(ITEM, Recovery(item(1)))
    assert hub.publish(ITEM, [bid(4)]) == [Load(ITEM)]
    assert hub.history_wanted(ITEM) == (1, 1)
    effects = hub.loaded(ITEM, Recovery(item(4), bids(2, 4)))
    assert sends(effects) == [([("bid", 2), ("bid", 3), ("bid", 4)], {"ann"})]


def test_the_stream_coming_back_has_every_item_looked_at() -> None:
    hub = new_hub()
    for item_id in ("a", "b"):
        hub.subscribe("ann", item_id)
        hub.loaded(item_id, Recovery(item(1, item_id=item_id)))
    hub.stream_down()
    assert hub.stream_up() == [Load("a"), Load("b")]


def test_without_the_stream_a_newcomer_gets_the_state_of_redis_and_so_does_everybody_else() -> None:
    hub = new_hub()
    hub.subscribe("ann", ITEM)
    hub.loaded(ITEM, Recovery(item(1)))
    hub.stream_down()
    assert hub.subscribe("bob", ITEM) == [Load(ITEM)]
    effects = hub.loaded(ITEM, Recovery(item(2), bids(2, 2)))
    assert sends(effects) == [([("bid", 2)], {"ann"}), ([("snapshot", 2)], {"bob"})]


def test_without_stream_and_redis_a_newcomer_gets_what_is_known_here() -> None:
    hub = new_hub()
    hub.subscribe("ann", ITEM)
    assert hub.load_failed(ITEM) == [], "nothing is known yet: the viewer waits"
    hub.loaded(ITEM, Recovery(item(1)))
    hub.stream_down()
    hub.subscribe("bob", ITEM)
    hub.subscribe("eve", ITEM, (1, 2))
    assert sends(hub.load_failed(ITEM)) == [([("snapshot", 1)], {"bob"})], "eve has seen more than this already"
    assert sends(hub.loaded(ITEM, Recovery(item(2)))) == [
        ([("snapshot", 2)], {"ann", "bob"}),
        ([("resumed", 2)], {"eve"}),
    ]


class TestUnknownItem:
    def test_is_refused(self) -> None:
        hub = new_hub()
        hub.subscribe("ann", ITEM)
        [effect] = hub.missing(ITEM)
        assert isinstance(effect, NotFound)
        assert list(effect.viewers) == ["ann"]
        assert not hub.watches(ITEM)
        assert hub.subscription_count == 0

    def test_may_be_watched_in_an_open_catalogue(self) -> None:
        hub = new_hub(open_catalogue=True)
        hub.subscribe("ann", ITEM)
        assert sends(hub.missing(ITEM)) == [([("snapshot", -1)], {"ann"})]
        assert hub.subscribe("bob", ITEM) == [Load(ITEM)], "it may exist by now"
        assert sends(hub.missing(ITEM)) == [([("snapshot", -1)], {"bob"})]
        assert hub.publish(ITEM, [bid(1)]) == [Load(ITEM)]
        assert sends(hub.loaded(ITEM, Recovery(item(1)))) == [([("snapshot", 1)], {"ann", "bob"})]

    def test_one_that_was_known_is_not_refused(self) -> None:
        hub = new_hub()
        hub.subscribe("ann", ITEM)
        hub.loaded(ITEM, Recovery(item(1)))
        hub.stream_down()
        hub.subscribe("bob", ITEM)
        assert sends(hub.missing(ITEM)) == [([("snapshot", 1)], {"bob"})]


class TestResume:
    def test_out_of_memory(self) -> None:
        hub = new_hub()
        hub.subscribe("ann", ITEM)
        hub.loaded(ITEM, Recovery(item(1)))
        hub.publish(ITEM, bids(2, 4))
        [effect] = hub.subscribe("bob", ITEM, (1, 2))
        assert isinstance(effect, Send)
        assert shown(effect.frames) == [("resumed", 4), ("bid", 3), ("bid", 4)]
        marker = content(effect.frames[0])
        assert (marker["recovered"], marker["replayed"], marker["since"]) == (True, 2, "1:2")

    def test_out_of_redis(self) -> None:
        hub = new_hub()
        assert hub.subscribe("bob", ITEM, (1, 2)) == [Load(ITEM)]
        assert hub.history_wanted(ITEM) == (1, 2)
        effects = hub.loaded(ITEM, Recovery(item(4), bids(3, 4)))
        assert sends(effects) == [([("resumed", 4), ("bid", 3), ("bid", 4)], {"bob"})]
        assert sends(hub.publish(ITEM, [bid(5)])) == [([("bid", 5)], {"bob"})]

    def test_events_during_the_load_are_part_of_the_replay(self) -> None:
        hub = new_hub(ring=2)
        hub.subscribe("ann", ITEM)
        hub.loaded(ITEM, Recovery(item(5)))
        assert hub.subscribe("bob", ITEM, (1, 2)) == [Load(ITEM)]
        assert sends(hub.publish(ITEM, [bid(6)])) == [([("bid", 6)], {"ann"})]
        effects = hub.loaded(ITEM, Recovery(item(5), bids(3, 5)))
        assert sends(effects) == [([("resumed", 6), *(("bid", seq) for seq in range(3, 7))], {"bob"})]

    def test_what_cannot_be_had_any_more_is_a_snapshot_that_says_so(self) -> None:
        hub = new_hub()
        hub.subscribe("bob", ITEM, (1, 2))
        [effect] = hub.loaded(ITEM, Recovery(item(900), bids(880, 900)))
        assert isinstance(effect, Send)
        assert shown(effect.frames) == [("snapshot", 900)]
        assert content(effect.frames[0])["recovered"] is False

    def test_an_epoch_that_is_over_needs_no_load(self) -> None:
        hub = new_hub()
        hub.subscribe("ann", ITEM)
        hub.loaded(ITEM, Recovery(item(3, epoch=2)))
        [effect] = hub.subscribe("bob", ITEM, (1, 2))
        assert isinstance(effect, Send)
        assert content(effect.frames[0])["recovered"] is False

    def test_a_viewer_from_the_future_waits_for_redis_and_sees_no_older_price(self) -> None:
        hub = new_hub()
        hub.subscribe("ann", ITEM)
        hub.loaded(ITEM, Recovery(item(3)))
        assert hub.subscribe("bob", ITEM, (1, 5)) == [Load(ITEM)]
        assert sends(hub.loaded(ITEM, Recovery(item(3)), again=True)) == []
        effects = hub.loaded(ITEM, Recovery(item(6), bids(4, 6)))
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
    [(_, joined)] = sends(hub.loaded(ITEM, begun, again=True))
    assert joined == {"ann"}
    assert hub.history_wanted(ITEM) == (1, 2)
    [(frames, joined)] = sends(hub.loaded(ITEM, Recovery(item(5), tuple(bids(3, 5)))))
    assert joined == {"bob"}
    assert frames == [("resumed", 5), ("bid", 3), ("bid", 4), ("bid", 5)]


def test_subscribing_again_sends_a_new_first_frame_and_counts_once() -> None:
    hub = new_hub()
    hub.subscribe("ann", ITEM)
    hub.loaded(ITEM, Recovery(item(1)))
    assert sends(hub.subscribe("ann", ITEM)) == [([("snapshot", 1)], {"ann"})]
    assert hub.subscribers(ITEM) == 1
    assert sends(hub.publish(ITEM, [bid(2)])) == [([("bid", 2)], {"ann"})]


def test_subscribing_again_with_a_load_under_way_stops_the_frames_until_it_is_done() -> None:
    hub = new_hub(ring=0)
    hub.subscribe("ann", ITEM)
    hub.loaded(ITEM, Recovery(item(3)))
    assert hub.subscribe("ann", ITEM, (1, 2)) == [Load(ITEM)]
    assert hub.publish(ITEM, [bid(4)]) == []
    assert sends(hub.loaded(ITEM, Recovery(item(4), bids(3, 4)))) == [
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
