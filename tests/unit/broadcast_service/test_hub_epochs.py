"""A shard is rebuilt, or an item is lost: what viewers are shown, and what they never are."""

from __future__ import annotations

from broadcast_service.core.effects import Load, NotFound, Send
from broadcast_service.core.feed import Recovery
from shared import names
from tests.unit.broadcast_service.builders import ITEM, bid, bids, content, item, shown
from tests.unit.broadcast_service.hubs import new_hub, only_sends, sends
from tests.unit.broadcast_service.transport.test_broadcaster import World
from tests.unit.broadcast_service.transport.test_connection import Pipe

SHARD = names.shard_of(ITEM)


def test_a_shard_with_another_epoch_has_its_items_looked_at_once() -> None:
    hub = new_hub()
    hub.subscribe("ann", ITEM)
    hub.loaded(ITEM, Recovery(item(3)), 0.0)
    assert hub.shards_watched() == {SHARD}
    assert hub.shards_seen({SHARD: 1}, []) == []
    assert hub.shards_seen({}, [SHARD]) == [], "it is being rebuilt"
    assert hub.shards_seen({SHARD: 2}, []) == [Load(ITEM)]
    assert hub.shards_seen({SHARD: 2}, []) == []
    assert sends(hub.loaded(ITEM, Recovery(item(3, epoch=2)), 0.0)) == [([("snapshot", 3)], {"ann"})]
    assert hub.epoch_heard(SHARD, 2) == []


def test_what_was_read_before_the_item_was_rebuilt_is_read_again() -> None:
    hub = new_hub()
    hub.subscribe("ann", ITEM)
    hub.shards_seen({SHARD: 2}, [])
    effects = hub.loaded(ITEM, Recovery(item(3)), 0.0)
    assert Load(ITEM) in effects
    assert [shown(effect.frames) for effect in effects if isinstance(effect, Send)] == [[("snapshot", 3)]]
    assert Load(ITEM) not in hub.loaded(ITEM, Recovery(item(3, epoch=2)), 0.0)


def test_an_item_that_stays_in_a_former_epoch_is_not_read_for_ever() -> None:
    """For example on an older copy of Redis, until it is rebuilt: each read would cause the next one at once."""
    hub = new_hub()
    hub.subscribe("ann", ITEM)
    hub.shards_seen({SHARD: 2}, [])
    assert Load(ITEM) in hub.loaded(ITEM, Recovery(item(3)), 0.0)
    assert Load(ITEM) not in hub.loaded(ITEM, Recovery(item(3)), 0.0)
    assert hub.shards_seen({SHARD: 1}, []) == [], "an older copy"
    assert hub.shards_seen({SHARD: 2}, []) == [Load(ITEM)]
    assert hub.shards_seen({SHARD: 3}, []) == [Load(ITEM)]
    assert Load(ITEM) not in hub.loaded(ITEM, Recovery(item(3, epoch=3)), 0.0)
    assert hub.shards_seen({SHARD: 3}, []) == []


def test_a_bid_right_after_a_shard_was_opened_is_shown_to_who_joined_in_between() -> None:
    world = World(rate_max=0)
    world.broadcaster.hub.shards_seen({SHARD: 1}, [])
    world.broadcaster.shards_seen({}, [SHARD])
    # The shard is opened, which the hub does not know yet, and the first viewer comes.
    pipe = Pipe()
    world.enter(pipe)
    world.broadcaster.loaded(ITEM, Recovery(item(3, epoch=2)), again=False)
    world.publish(bid(4, epoch=2), shard_epoch=2)
    before = world.loads.count(ITEM)
    world.broadcaster.shards_seen({SHARD: 2}, [])
    assert world.loads.count(ITEM) == before + 1
    world.broadcaster.loaded(ITEM, Recovery(item(4, epoch=2), bids(4, 4, epoch=2)), again=False)
    assert pipe.seqs == [3, 4]


def test_an_item_that_was_not_known_to_exist_is_looked_for_when_its_shard_is_rebuilt() -> None:
    """The stream did not answer, so nobody could tell that the item was lost."""
    hub = new_hub(open_catalogue=True)
    hub.shards_seen({SHARD: 1}, [])
    hub.subscribe("ann", ITEM)
    hub.missing(ITEM, 0.0)
    assert hub.shards_seen({SHARD: 1}, []) == []
    assert hub.shards_seen({SHARD: 2}, []) == [Load(ITEM)]


def test_messages_of_a_former_epoch_are_over_and_those_of_the_present_one_are_not() -> None:
    hub = new_hub()
    hub.subscribe("ann", ITEM)
    assert not hub.is_over(SHARD, 1)
    hub.shards_seen({SHARD: 1}, [])
    assert not hub.is_over(SHARD, 1)
    hub.shards_seen({}, [SHARD])
    assert hub.is_over(SHARD, 1), "from the claim on nothing of it gets into the archive"
    hub.shards_seen({SHARD: 2}, [])
    assert (hub.is_over(SHARD, 1), hub.is_over(SHARD, 2)) == (True, False)


def test_a_message_of_a_newer_epoch_tells_it_too() -> None:
    hub = new_hub()
    neighbour = next(f"x{n}" for n in range(10_000) if names.shard_of(f"x{n}") == SHARD)
    for each in (ITEM, neighbour):
        hub.subscribe("ann", each)
        hub.loaded(each, Recovery(item(3, item_id=each)), 0.0)
    assert hub.epoch_heard(SHARD, 1) == []
    assert set(hub.epoch_heard(SHARD, 2)) == {Load(ITEM), Load(neighbour)}
    assert hub.epoch_heard(SHARD, 2) == []


def test_a_late_message_with_a_higher_number_is_not_shown() -> None:
    world = World(rate_max=0)
    pipe = Pipe()
    world.enter(pipe)
    world.broadcaster.loaded(ITEM, Recovery(item(3)), again=False)
    world.broadcaster.shards_seen({SHARD: 2}, [])
    assert world.loads.count(ITEM) == 2
    # Redis has not answered yet, so viewers still see the item in the former epoch.
    world.publish(bid(4))
    assert pipe.seqs == [3]
    assert world.metrics.messages_former == 1
    world.broadcaster.loaded(ITEM, Recovery(item(3, epoch=2)), again=False)
    world.publish(bid(5))
    assert (pipe.seqs, world.metrics.messages_former) == ([3, 3], 2)


def test_who_waits_for_a_lost_item_is_told_once_and_served_when_it_is_back() -> None:
    hub = new_hub()
    hub.subscribe("ann", ITEM)
    [send] = only_sends(hub.lost(ITEM, 0.0))
    assert (content(send.frames[0])["code"], set(send.viewers)) == ("BEING_REBUILT", {"ann"})
    assert (hub.lost(ITEM, 0.0), hub.lost_count) == ([], 1)
    hub.subscribe("bob", ITEM)
    [send] = only_sends(hub.lost(ITEM, 0.0))
    assert set(send.viewers) == {"bob"}
    assert hub.shards_seen({}, [SHARD]) == [], "not while its shard is gone"
    assert hub.shards_seen({SHARD: 2}, []) == [Load(ITEM)]
    assert sends(hub.loaded(ITEM, Recovery(item(3, epoch=2)), 0.0)) == [([("snapshot", 3)], {"ann", "bob"})]
    assert (hub.lost_count, hub.shards_seen({SHARD: 2}, [])) == (0, [])


def test_a_lost_item_that_nobody_waits_for_any_more_is_forgotten() -> None:
    hub = new_hub()
    hub.subscribe("ann", ITEM)
    hub.lost(ITEM, 0.0)
    hub.leave("ann")
    assert (hub.lost_count, hub.shards_seen({SHARD: 2}, [])) == (0, [])
    hub.subscribe("ann", ITEM)
    hub.lost(ITEM, 0.0)
    assert hub.missing(ITEM, 0.0) == [NotFound(ITEM, ["ann"])], "after all it never was"
    assert hub.lost_count == 0


def test_what_is_known_here_of_a_lost_item_has_to_do() -> None:
    hub = new_hub()
    hub.subscribe("ann", ITEM)
    hub.loaded(ITEM, Recovery(item(3), bids(3, 3)), 0.0)
    hub.stream_down(0.0)
    hub.subscribe("bob", ITEM)
    assert sends(hub.lost(ITEM, 0.0)) == [([("snapshot", 3), ("stale", 3)], {"bob"})]
    assert hub.lost_count == 0


def test_a_lost_item_that_may_be_opened_is_no_longer_lost_once_it_is_known_to_be_none() -> None:
    hub = new_hub(open_catalogue=True)
    hub.subscribe("ann", ITEM)
    hub.lost(ITEM, 0.0)
    assert hub.lost_count == 1
    hub.missing(ITEM, 0.0)
    assert hub.lost_count == 0


def test_who_asks_again_for_a_lost_item_is_told_again() -> None:
    """Also on the same connection, and where others wait all the while."""
    hub = new_hub()
    for viewer in ("ann", "bob"):
        hub.subscribe(viewer, ITEM)
    hub.lost(ITEM, 0.0)
    hub.subscribe("ann", ITEM)
    [send] = only_sends(hub.lost(ITEM, 0.0))
    assert set(send.viewers) == {"ann"}
    hub.leave("bob")
    assert hub._channels[ITEM]._told_lost == {"ann"}, "nothing is kept of who left"
    hub.subscribe("bob", ITEM)
    [send] = only_sends(hub.lost(ITEM, 0.0))
    assert set(send.viewers) == {"bob"}
    hub.loaded(ITEM, Recovery(item(3, epoch=2)), 0.0)
    assert hub._channels[ITEM]._told_lost == set()


def test_an_item_that_is_behind_and_that_nobody_watches_any_more_is_not_read() -> None:
    hub = new_hub()
    hub.subscribe("ann", ITEM)
    hub.epoch_heard(SHARD, 2)
    assert Load(ITEM) in hub.loaded(ITEM, Recovery(item(3)), 0.0)
    assert hub.shards_seen({SHARD: 2}, []) == [Load(ITEM)]
    hub.leave("ann")
    assert hub.shards_seen({SHARD: 2}, []) == []


def test_who_joins_an_item_that_redis_lacks_is_not_told_what_the_others_are() -> None:
    """Its own first frames say it."""
    hub = new_hub()
    hub.subscribe("ann", ITEM, full=True)
    hub.loaded(ITEM, Recovery(item(3)), 0.0)
    hub.stream_down(0.0)
    hub.stream_up()
    hub.subscribe("bob", ITEM, full=True)
    hub.history_wanted(ITEM)
    told = sends(hub.missing(ITEM, 0.0))
    assert told == [([("stale", 3)], {"ann"}), ([("snapshot", 3)], {"bob"})]


def test_who_missed_what_was_looked_for_and_is_gone_does_not_wait_for_another_look() -> None:
    hub = new_hub(ring=2)
    hub.subscribe("ann", ITEM)
    hub.loaded(ITEM, Recovery(item(9)), 0.0)
    assert hub.subscribe("bob", ITEM, (1, 4)) == [Load(ITEM)]
    assert hub.history_wanted(ITEM) == {1: 4}
    [send] = only_sends(hub.loaded(ITEM, Recovery(item(9)), 0.0, again=True))
    assert (shown(send.frames), set(send.viewers)) == ([("snapshot", 9)], {"bob"})
