"""What a feed does while Redis is behind the stream, or has nothing: how often it asks, and what it then shows."""

from __future__ import annotations

from broadcast_service.core.feed import WAITING_MAX, ItemFeed, Recovery
from tests.unit.broadcast_service.builders import ITEM, bid, bids, content, created, extended, item, shown


def feed_at(seq: int) -> ItemFeed:
    feed = ItemFeed(ITEM)
    feed.recover(Recovery(item(seq)))
    return feed


def asks_again(feed: ItemFeed, seq: int) -> bool:
    """Whether a snapshot of this seq, without events, leaves the feed waiting for a newer one."""
    return feed.recover(Recovery(item(seq))).load


def test_a_redis_that_comes_nearer_is_waited_for_however_long_it_takes() -> None:
    feed = feed_at(3)
    assert feed.offer([bid(9)]).load
    assert all(asks_again(feed, seq) for seq in (3, 4, 5, 6, 7))
    assert [shown(feed.recover(Recovery(item(8))).frames), feed.version] == [[("snapshot", 8), ("bid", 9)], (1, 9)]


def test_snapshots_that_were_old_before_a_gap_closed_do_not_count_for_the_next_one() -> None:
    feed = feed_at(3)
    feed.offer([bid(5)])
    assert asks_again(feed, 3)
    assert asks_again(feed, 3)
    assert shown(feed.offer([bid(4)]).frames) == [("bid", 4), ("bid", 5)]
    assert not asks_again(feed, 5)
    feed.offer([bid(8)])
    assert asks_again(feed, 5)


def test_nor_do_those_before_the_newest_event_stood_for_one() -> None:
    feed = feed_at(3)
    feed.offer([extended(9, 4)])
    assert [asks_again(feed, 3) for _ in range(3)] == [True, True, False]
    assert feed.version == (1, 9)
    assert content(feed.snapshot())["extensions"] == 4, "as that event says"
    feed.offer([bid(12)])
    assert asks_again(feed, 3)


def test_exactly_so_many_events_may_wait() -> None:
    feed = ItemFeed(ITEM)
    feed.offer(bids(5, 4 + WAITING_MAX))
    assert not asks_again(feed, 4)
    assert feed.version == (1, 4 + WAITING_MAX)


def test_what_waited_for_an_item_that_there_is_not_is_none_of_the_one_that_is_created_later() -> None:
    feed = ItemFeed(ITEM)
    feed.offer(bids(4, 5))
    feed.absent()
    assert feed.offer([created()]).load
    advance = feed.recover(Recovery(item(0), (created(),)))
    assert (shown(advance.frames), advance.load, feed.version) == ([("snapshot", 0)], False, (1, 0))
