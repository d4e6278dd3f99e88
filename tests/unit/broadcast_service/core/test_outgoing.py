"""The queue of a slow viewer."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import given

from broadcast_service.core.feed import ItemFeed, Recovery
from broadcast_service.core.frames import (
    Frame,
    FrameKind,
    error_frame,
    event_frame,
    snapshot_frame,
    stale_frame,
    state_frame,
    viewers_frame,
)
from broadcast_service.core.outgoing import Outgoing, OutgoingLimits
from tests.unit.broadcast_service.builders import bid, closed, content, item, price_at


def queue_of(frames: list[Frame], *, frames_max: int = 4, bytes_max: int = 100_000) -> Outgoing:
    outgoing = Outgoing(OutgoingLimits(frames_max=frames_max, bytes_max=bytes_max))
    for frame in frames:
        assert outgoing.push(frame, 0.0)
    return outgoing


def drained(outgoing: Outgoing) -> list[Frame]:
    return [outgoing.pop(0.0) for _ in range(len(outgoing))]


def bid_frames(first: int, last: int) -> list[Frame]:
    return [event_frame(bid(seq)) for seq in range(first, last + 1)]


def test_below_the_bound_everything_waits_as_it_is() -> None:
    frames = bid_frames(1, 4)
    assert drained(queue_of(frames)) == frames


def test_past_the_bound_the_newest_state_stands_for_all() -> None:
    [frame] = drained(queue_of(bid_frames(1, 5)))
    shown = content(frame)
    assert (shown["type"], shown["seq"], shown["bids_since_last"]) == ("state", 5, 5)
    assert shown["current_bid"] == price_at(5) / 100


def test_only_bids_are_counted_as_bids() -> None:
    [frame] = drained(queue_of([*bid_frames(1, 4), event_frame(closed(5))]))
    shown = content(frame)
    assert (shown["type"], shown["status"], shown["bids_since_last"]) == ("state", "sold", 4)


def test_conflation_goes_on_where_it_stopped() -> None:
    outgoing = queue_of(bid_frames(1, 5))
    for frame in bid_frames(6, 9):
        outgoing.push(frame, 0.0)
    [frame] = drained(outgoing)
    assert content(frame)["bids_since_last"] == 9


def test_a_snapshot_replaces_what_was_before_it_and_stays_before_what_follows() -> None:
    frames = [*bid_frames(1, 2), snapshot_frame(item(3)), snapshot_frame(item(4)), *bid_frames(5, 6)]
    snapshot, state = drained(queue_of(frames, frames_max=5))
    assert (content(snapshot)["type"], content(snapshot)["seq"]) == ("snapshot", 4)
    assert (content(state)["type"], content(state)["bids_since_last"]) == ("state", 2)


def test_messages_about_the_connection_are_kept_in_their_place() -> None:
    error = error_frame("CODE", "words")
    frames = [*bid_frames(1, 2), error, *bid_frames(3, 5)]
    assert [content(frame)["type"] for frame in drained(queue_of(frames, frames_max=5))] == ["error", "state"]


def test_of_each_status_only_the_newest_is_kept() -> None:
    stale = [stale_frame("vase", (1, seq), seq % 2 == 0) for seq in range(4)]
    frames = [*stale, viewers_frame("vase", 1, True), viewers_frame("lamp", 2, True), viewers_frame("vase", 3, True)]
    assert drained(queue_of(frames, frames_max=6)) == [stale[-1], *frames[-2:]]


def test_a_state_counts_for_all_that_it_stands_for() -> None:
    state = state_frame(bid(4), events=5, bids=4, extensions=1)
    assert drained(queue_of([state])) == [state]
    [merged] = drained(queue_of([state, *bid_frames(5, 8)]))
    assert (content(merged)["type"], content(merged)["bids_since_last"], content(merged)["seq"]) == ("state", 8, 8)
    assert (merged.events, merged.bids) == (9, 8)


def test_items_are_conflated_apart() -> None:
    frames = [event_frame(bid(seq, item_id=name)) for seq in (1, 2, 3) for name in ("a", "b")]
    shown = [content(frame) for frame in drained(queue_of(frames, frames_max=5))]
    assert [(state["item_id"], state["seq"], state["bids_since_last"]) for state in shown] == [("a", 3, 3), ("b", 3, 3)]


def test_a_single_event_of_an_item_stays_the_event_that_it_is() -> None:
    lonely = event_frame(bid(1, item_id="a"))
    frames = drained(queue_of([lonely, *bid_frames(1, 4)]))
    assert frames[0] is lonely
    assert content(frames[1])["type"] == "state"


def test_too_many_bytes_even_when_conflated() -> None:
    outgoing = Outgoing(OutgoingLimits(frames_max=100, bytes_max=2_000))
    verdicts = [outgoing.push(event_frame(bid(1, item_id=f"item-{number}")), 0.0) for number in range(10)]
    assert verdicts[0]
    assert not verdicts[-1]


def test_too_many_bytes_that_can_be_conflated() -> None:
    outgoing = queue_of(bid_frames(1, 40), frames_max=100, bytes_max=2_000)
    assert outgoing.queued_bytes <= 2_000
    assert content(drained(outgoing)[-1])["seq"] == 40


def test_stalled_means_that_nothing_moves_while_something_waits() -> None:
    outgoing = Outgoing(OutgoingLimits(stalled_max_s=10))
    assert not outgoing.is_stalled(1_000.0), "nothing waits"
    outgoing.push(bid_frames(1, 1)[0], 1_000.0)
    outgoing.push(bid_frames(2, 2)[0], 1_009.0)
    assert not outgoing.is_stalled(1_010.0)
    assert outgoing.is_stalled(1_010.1)
    outgoing.pop(1_011.0)
    assert not outgoing.is_stalled(1_020.0)
    outgoing.clear()
    assert len(outgoing) == outgoing.queued_bytes == 0
    assert not outgoing.is_stalled(2_000.0)


@given(
    steps=st.lists(st.sampled_from(["bid", "bid", "bid", "snapshot", "error", "pop", "other item"]), max_size=120),
    frames_max=st.integers(4, 20),
)
def test_whatever_happens_versions_rise_no_bid_is_uncounted_and_the_end_is_the_newest(
    steps: list[str], frames_max: int
) -> None:
    outgoing = Outgoing(OutgoingLimits(frames_max=frames_max))
    feed = ItemFeed("vase")
    feed.recover(Recovery(item(0)))
    taken: list[Frame] = []
    other = 0
    for step in steps:
        match step:
            case "bid":
                assert feed.version is not None
                [frame] = feed.offer([bid(feed.version[1] + 1)]).frames
                outgoing.push(frame, 0.0)
            case "snapshot":
                outgoing.push(feed.snapshot(), 0.0)
            case "error":
                outgoing.push(error_frame("CODE", "words"), 0.0)
            case "other item":
                other += 1
                outgoing.push(event_frame(bid(other, item_id="other")), 0.0)
            case "pop" if len(outgoing):
                taken.append(outgoing.pop(0.0))
        # The newest state of two items, a snapshot, and frames about the connection, which are never dropped; twice as
        # many, because the queue is not conflated for every frame.
        assert len(outgoing) <= max(frames_max, 2 * (3 + steps.count("error")))
    taken += drained(outgoing)
    assert sum(frame.kind is FrameKind.CONTROL for frame in taken) == steps.count("error")
    at, counted = 0, 0
    for frame in taken:
        if frame.item_id != "vase":
            continue
        shown = content(frame)
        assert shown["seq"] >= at
        if frame.kind is FrameKind.SNAPSHOT:
            counted = shown["bid_count"]
        else:
            assert shown["seq"] > at
            counted += shown.get("bids_since_last", 1)
        assert shown["bid_count"] == counted, "every bid was shown, counted or in a snapshot"
        at = shown["seq"]
    assert at == steps.count("bid") or not any(frame.item_id == "vase" for frame in taken)
