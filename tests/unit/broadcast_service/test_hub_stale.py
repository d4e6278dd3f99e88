"""Events stop flowing and flow again: what viewers are told, and in which order."""

from __future__ import annotations

from broadcast_service.core.effects import Load, Send, Wake
from broadcast_service.core.feed import Recovery
from broadcast_service.core.hub import Hub
from tests.unit.broadcast_service.builders import ITEM, bids, content, item, shown
from tests.unit.broadcast_service.hubs import Viewer, new_hub, only_sends, sends


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
