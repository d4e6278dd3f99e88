"""One item's feed: snapshot and events, gaps, and the frames for a viewer who reconnects."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest

from broadcast_service.core.feed import OLD_SNAPSHOTS_MAX, WAITING_MAX, ItemFeed, Recovery
from broadcast_service.core.frames import UNKNOWN
from broadcast_service.core.outgoing import Outgoing, OutgoingLimits
from shared.domain.soft_close import SoftClose
from shared.messages import Event
from shared.redis_layout.item_hash import ItemState
from shared.timefmt import to_rfc3339
from tests.unit.broadcast_service.builders import (
    ITEM,
    SECRET,
    START_US,
    bid,
    bids,
    closed,
    content,
    created,
    end_moved,
    extended,
    item,
    paused,
    resumed,
    shown,
)


def feed_at(seq: int, *, ring: int = 32) -> ItemFeed:
    feed = ItemFeed(ITEM, ring_events_max=ring)
    feed.recover(Recovery(item(seq)))
    return feed


def test_events_in_order_become_frames() -> None:
    feed = feed_at(3)
    advance = feed.offer(bids(4, 6))
    assert shown(advance.frames) == [("bid", 4), ("bid", 5), ("bid", 6)]
    assert not advance.load


def test_every_frame_knows_when_its_item_was_created_for_its_bidders_are_named_by_that() -> None:
    """Also one that stands for several, in a queue."""
    feed = feed_at(3)
    made = item(3).created_us
    passing = feed.offer(bids(4, 6)).frames
    begun = ItemFeed(ITEM)
    begun.recover(Recovery(item(6), tuple(bids(4, 6))))
    frames = [*passing, *feed.history(Recovery(item(6), tuple(bids(2, 6)))).values(), *begun.history().values()]
    queue = Outgoing(OutgoingLimits(frames_max=2))
    for frame in passing:
        queue.push(frame, 0.0)
    frames += [queue.pop(0.0) for _ in range(len(queue))]
    passed = [("bid", seq) for seq in (4, 5, 6)]
    assert shown(tuple(frames)) == [*passed, *(("bid", seq) for seq in range(2, 7)), *passed, ("state", 6)]
    assert {frame.created_us for frame in frames} == {made}


def test_duplicates_and_old_events_are_dropped() -> None:
    feed = feed_at(3)
    assert shown(feed.offer([bid(2), bid(3), bid(4), bid(4)]).frames) == [("bid", 4)]
    assert feed.offer([bid(4)]).frames == ()


def test_events_wait_for_the_first_snapshot_and_are_not_doubled_by_it() -> None:
    feed = ItemFeed(ITEM)
    early = feed.offer(bids(4, 6))
    assert early.frames == ()
    assert not early.load, "the load of the first snapshot is under way already"
    feed.recover(Recovery(item(5)))
    assert content(feed.snapshot())["seq"] == 6
    assert feed.version == (1, 6)


def test_events_that_overtake_each_other_come_out_in_order() -> None:
    feed = feed_at(3)
    late = feed.offer([bid(5)])
    assert late.frames == ()
    assert late.load
    assert shown(feed.offer([bid(4)]).frames) == [("bid", 4), ("bid", 5)]


def test_a_gap_is_replayed_from_the_recent_events() -> None:
    feed = feed_at(3)
    assert feed.offer([bid(7)]).load
    advance = feed.recover(Recovery(item(8), bids(1, 8)))
    assert shown(advance.frames) == [("bid", seq) for seq in range(4, 9)]
    assert not advance.load


def test_a_gap_that_cannot_be_replayed_becomes_an_explicit_snapshot_and_never_a_partial_replay() -> None:
    feed = feed_at(3)
    feed.offer([bid(7)])
    advance = feed.recover(Recovery(item(8), bids(5, 8)))
    assert shown(advance.frames) == [("snapshot", 8)]
    assert content(advance.frames[0])["recovered"] is False


@pytest.mark.parametrize("events", [bids(4, 6), bids(4, 7), (bid(4), bid(6), bid(7), bid(8)), ()])
def test_events_that_do_not_reach_the_snapshot_are_not_replayed(events: tuple[Event, ...]) -> None:
    assert shown(feed_at(3).recover(Recovery(item(8), events)).frames) == [("snapshot", 8)]


def test_a_recovery_that_is_not_newer_shows_nothing() -> None:
    feed = feed_at(5)
    assert feed.recover(Recovery(item(4), bids(1, 4))).frames == ()
    assert feed.version == (1, 5)


def test_what_waits_behind_a_recovery_follows_it() -> None:
    feed = feed_at(3)
    feed.offer([bid(7), bid(6), bid(5)])
    assert shown(feed.recover(Recovery(item(5), bids(4, 5))).frames) == [("bid", seq) for seq in (4, 5, 6, 7)]


def test_a_new_epoch_is_shown_as_a_snapshot() -> None:
    feed = feed_at(9)
    assert feed.offer([bid(11, epoch=2)]).load
    advance = feed.recover(Recovery(item(11, epoch=2), bids(11, 11, epoch=2)))
    assert shown(advance.frames) == [("snapshot", 11)]
    assert feed.offer([bid(12)]).frames == (), "an event of the old epoch is older, whatever its seq"
    assert shown(feed.offer([bid(12, epoch=2)]).frames) == [("bid", 12)]


def test_the_same_seq_of_another_epoch_is_another_version() -> None:
    """The item was rebuilt without an event that this viewer was shown, and has had another one since."""
    feed = ItemFeed(ITEM)
    feed.recover(Recovery(item(5, epoch=2)))
    assert feed.resume((1, 5), feed.history()) is None
    assert feed.resume((2, 5), feed.history()) == ()


def test_redis_that_stays_behind_does_not_stop_the_feed() -> None:
    feed = feed_at(3)
    feed.offer([bid(7), bid(8)])
    for _ in range(OLD_SNAPSHOTS_MAX - 1):
        assert feed.recover(Recovery(item(2))).load
    advance = feed.recover(Recovery(item(2)))
    assert not advance.load
    assert shown(advance.frames) == [("snapshot", 8)]
    assert content(advance.frames[0])["current_bid"] == 9.0
    assert shown(feed.offer([bid(9)]).frames) == [("bid", 9)]


def test_waiting_events_are_bounded() -> None:
    feed = ItemFeed(ITEM)
    feed.offer(bids(2, WAITING_MAX + 10))
    assert feed.recover(Recovery(item(1))).load, "the oldest were dropped, so there is a gap now"
    advance = feed.recover(Recovery(item(WAITING_MAX + 5), ()))
    assert shown(advance.frames)[0] == ("snapshot", WAITING_MAX + 5)
    assert feed.version == (1, WAITING_MAX + 10)


def test_an_unknown_item_begins_with_its_created_event_as_a_public_snapshot() -> None:
    feed = ItemFeed(ITEM)
    feed.absent()
    assert feed.version == UNKNOWN
    assert content(feed.snapshot()) == {"type": "snapshot", "item_id": ITEM, "status": "unknown", "epoch": 0, "seq": -1}
    # Its terms come from Redis: the event's own are not all public.
    assert feed.offer([created(), bid(1)]).load
    advance = feed.recover(Recovery(item(1), (created(), bid(1))))
    assert shown(advance.frames) == [("snapshot", 0), ("bid", 1)]
    assert str(SECRET) not in "".join(frame.text.decode() for frame in advance.frames)


def test_an_item_that_vanished_from_redis_keeps_its_last_state() -> None:
    feed = feed_at(4)
    feed.absent()
    assert content(feed.snapshot())["seq"] == 4


def test_a_snapshot_after_events_is_the_same_as_one_from_redis() -> None:
    feed = feed_at(2)
    feed.offer(bids(3, 5))
    assert content(feed.snapshot()) == content(feed_at(5).snapshot())


def test_a_snapshot_is_made_once_per_version() -> None:
    feed = feed_at(2)
    first = feed.snapshot()
    assert feed.snapshot() is first
    assert feed.snapshot(recovered=False) is not first
    feed.offer([bid(3)])
    assert feed.snapshot() is not first


def test_the_close_is_in_later_snapshots() -> None:
    feed = feed_at(2)
    assert shown(feed.offer([closed(3)]).frames) == [("closed", 3)]
    assert content(feed.snapshot())["status"] == "sold"


class TestResume:
    def test_from_memory(self) -> None:
        feed = feed_at(3)
        live = feed.offer(bids(4, 6)).frames
        resumed = feed.resume((1, 4), feed.history())
        assert resumed == live[1:], "the very same frames, not encoded again"

    def test_nothing_was_missed(self) -> None:
        assert feed_at(3).resume((1, 3), {}) == ()

    def test_from_redis_and_memory_together(self) -> None:
        feed = feed_at(3, ring=2)
        feed.offer(bids(4, 8))
        assert feed.resume((1, 3), feed.history()) is None, "memory reaches back to 7 only"
        resumed = feed.resume((1, 3), feed.history(Recovery(item(6), bids(1, 6))))
        assert resumed is not None
        assert shown(resumed) == [("bid", seq) for seq in range(4, 9)]

    def test_one_missing_event_means_none_at_all(self) -> None:
        feed = feed_at(3, ring=2)
        feed.offer(bids(4, 8))
        assert feed.resume((1, 3), feed.history(Recovery(item(5), bids(1, 5)))) is None

    @pytest.mark.parametrize("since", [(1, 9), (2, 1), (0, -1), (2, 100)])
    def test_what_this_feed_never_said_cannot_be_resumed(self, since: tuple[int, int]) -> None:
        feed = feed_at(3)
        feed.offer(bids(4, 8))
        assert feed.resume(since, feed.history()) is None

    def test_a_far_past_is_given_up_at_the_first_missing_event(self) -> None:
        feed = feed_at(10**12)
        assert feed.resume((1, 1), feed.history()) is None

    def test_the_ring_is_filled_by_a_first_snapshot_that_comes_with_events(self) -> None:
        feed = ItemFeed(ITEM, ring_events_max=3)
        feed.recover(Recovery(item(6), (created(), *bids(1, 6))))
        resumed = feed.resume((1, 3), feed.history())
        assert resumed is not None
        assert shown(resumed) == [("bid", 4), ("bid", 5), ("bid", 6)]
        assert feed.resume((1, 2), feed.history()) is None

    def test_a_jump_forgets_what_was_before(self) -> None:
        feed = feed_at(3)
        feed.offer(bids(4, 5))
        feed.recover(Recovery(item(9)))
        assert feed.resume((1, 4), feed.history()) is None

    def test_the_created_event_is_never_replayed_as_it_is(self) -> None:
        feed = feed_at(2, ring=0)
        assert feed.resume((1, -1), feed.history(Recovery(item(2), (created(), *bids(1, 2))))) is None

    def test_what_redis_may_know_better(self) -> None:
        feed = feed_at(5)
        assert feed.may_recover((1, 2))
        assert feed.may_recover((2, 1))
        feed.recover(Recovery(item(6, epoch=2)))
        assert not feed.may_recover((1, 4)), "an epoch that is over"


class TestExtensions:
    """Snapshots and ``extended`` events tell how often the end was moved, and every ``state`` shows it."""

    def test_of_events_as_they_come(self) -> None:
        feed = ItemFeed(ITEM)
        feed.recover(Recovery(item(3, extensions=2)))
        frames = feed.offer([bid(4), extended(5, 3), bid(6)]).frames
        assert [frame.extensions for frame in frames] == [2, 3, 3]
        assert content(feed.snapshot())["extensions"] == 3

    def test_of_events_out_of_redis(self) -> None:
        feed = feed_at(3)
        recovery = Recovery(item(6, extensions=3), (bid(4), extended(5, 3), bid(6)))
        assert [frame.extensions for frame in feed.recover(recovery).frames] == [2, 3, 3]
        later = ItemFeed(ITEM)
        later.recover(recovery)
        assert [frame.extensions for frame in later.history().values()] == [2, 3, 3]
        bare = ItemFeed(ITEM, ring_events_max=0)
        bare.recover(recovery)
        assert [frame.extensions for frame in bare.history(recovery).values()] == [2, 3, 3]
        assert content(bare.snapshot())["extensions"] == 3


def with_hard_end(seq: int, hard_end_us: int, end_us: int) -> ItemState:
    base = item(seq)
    soft = SoftClose(60_000_000, 60_000_000, "from_bid", 0, hard_end_us)
    state = replace(base.state, end_us=end_us, hard_end_us=hard_end_us)
    return msgspec.structs.replace(base, terms=replace(base.terms, end_us=end_us, soft_close=soft), state=state)


def test_a_pause_moves_the_hard_end_that_newcomers_are_shown() -> None:
    """No event has it, but it moves with the end."""
    minute_us = 60_000_000

    def hard_end(feed: ItemFeed) -> str:
        told: str = content(feed.snapshot())["soft_close"]["hard_end"]
        return told

    feed = ItemFeed(ITEM)
    feed.recover(Recovery(with_hard_end(3, START_US + 9 * minute_us, START_US + 5 * minute_us)))
    assert hard_end(feed) == to_rfc3339(START_US + 9 * minute_us)
    stopped = msgspec.structs.replace(paused(4), end_us=START_US + 5 * minute_us)
    again = resumed(5, end_us=START_US + 7 * minute_us)
    feed.offer([stopped, again])
    assert hard_end(feed) == to_rfc3339(START_US + 11 * minute_us)
    feed.offer([msgspec.structs.replace(paused(6), end_us=START_US + 7 * minute_us)])
    after = with_hard_end(8, START_US + 14 * minute_us, START_US + 10 * minute_us)
    missed = (resumed(7, end_us=START_US + 10 * minute_us), bid(8))
    assert shown(feed.recover(Recovery(after, missed)).frames) == [("resumed", 7), ("bid", 8)]
    assert hard_end(feed) == to_rfc3339(START_US + 14 * minute_us), "once, not again with the event that was missed"
    feed.offer([bid(9)])
    assert hard_end(feed) == to_rfc3339(START_US + 14 * minute_us)
    feed.offer([end_moved(10, START_US + 10 * minute_us, end_us=START_US + 13 * minute_us)])
    assert hard_end(feed) == to_rfc3339(START_US + 17 * minute_us), "an operator moves both ends as well"
