"""Frames of one item at a bounded rate: what goes out at once, what waits, and which viewer is told how much."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given

from broadcast_service.core.conflation import GROUP_MAX, Conflated
from broadcast_service.core.effects import Send
from broadcast_service.core.frames import Frame, event_frame, snapshot_frame
from broadcast_service.core.pace import Pace
from tests.unit.broadcast_service.builders import bid, closed, content, extended, item, paused

RATE = 10.0
SLOT_S = 1 / RATE
Shown = dict[str, list[tuple[str, int, int | None]]]


def conflated(*viewers: str, rate: float = RATE) -> Conflated[str]:
    made: Conflated[str] = Conflated(Pace(rate))
    made.add(viewers)
    return made


def bids(first: int, last: int) -> tuple[Frame, ...]:
    return tuple(event_frame(bid(seq)) for seq in range(first, last + 1))


def seen(sends: list[Send[str]]) -> Shown:
    """Type, seq and bids_since_last of what each viewer gets."""
    shown: Shown = {}
    for send in sends:
        for viewer in send.viewers:
            for frame in send.frames:
                said = content(frame)
                shown.setdefault(viewer, []).append((said["type"], said["seq"], said.get("bids_since_last")))
    return shown


def test_the_first_bid_after_a_quiet_time_goes_out_at_once_and_those_after_it_as_one_state() -> None:
    viewers = conflated("ann")
    assert seen(viewers.show(bids(1, 1), 5.0)) == {"ann": [("bid", 1, None)]}
    assert viewers.show(bids(2, 3), 5.01) == []
    assert viewers.show(bids(4, 4), 5.05) == []
    assert viewers.due_s == pytest.approx(5.0 + SLOT_S)
    assert viewers.flush(5.05) == [], "early"
    assert seen(viewers.flush(5.1)) == {"ann": [("state", 4, 3)]}
    assert viewers.due_s is None
    assert viewers.flush(5.3) == []


def test_one_event_that_waited_is_shown_as_itself() -> None:
    viewers = conflated("ann")
    viewers.show(bids(1, 1), 5.0)
    waiting = bids(2, 2)
    viewers.show(waiting, 5.01)
    [send] = viewers.flush(5.1)
    assert send.frames == waiting, "the very frame that others get, not encoded again"


def test_what_one_bid_brings_goes_out_together_and_takes_as_many_slots() -> None:
    viewers = conflated("ann")
    group = (*bids(1, 2), event_frame(extended(3, 1)))
    assert seen(viewers.show(group, 5.0)) == {"ann": [("bid", 1, None), ("bid", 2, None), ("extended", 3, None)]}
    viewers.show(bids(4, 4), 5.11)
    assert viewers.due_s == pytest.approx(5.0 + 3 * SLOT_S)
    assert seen(viewers.show(bids(5, 5 + GROUP_MAX), 9.0)) == {"ann": [("state", 5 + GROUP_MAX, 2 + GROUP_MAX)]}


def test_a_state_has_what_was_in_the_events_that_it_stands_for() -> None:
    viewers = conflated("ann")
    viewers.show(bids(1, 1), 5.0)
    viewers.show((event_frame(bid(2)), event_frame(extended(3, 2), extensions=2)), 5.01)
    viewers.show((event_frame(bid(4), extensions=2),), 5.02)
    [send] = viewers.flush(5.1)
    [state] = map(content, send.frames)
    assert (state["bids_since_last"], state["extensions"], state["current_bid"]) == (2, 2, 5.0)
    assert state["highest_bidder_id"] == "user-4"
    assert "end_time" in state


def test_what_is_no_bid_goes_out_at_once_after_a_state_for_what_waited() -> None:
    viewers = conflated("ann")
    viewers.show(bids(1, 1), 5.0)
    viewers.show(bids(2, 3), 5.01)
    assert seen(viewers.show((event_frame(bid(4)), event_frame(closed(5))), 5.02)) == {
        "ann": [("state", 4, 3), ("closed", 5, None)]
    }
    assert viewers.due_s is None


def test_bids_after_it_wait_for_the_slot() -> None:
    viewers = conflated("ann")
    viewers.show(bids(1, 1), 5.0)
    assert seen(viewers.show((event_frame(paused(2)), *bids(3, 4)), 5.01)) == {"ann": [("paused", 2, None)]}
    assert viewers.due_s == pytest.approx(5.0 + 2 * SLOT_S)


def test_a_snapshot_stands_for_all_that_waited() -> None:
    viewers = conflated("ann")
    viewers.show(bids(1, 1), 5.0)
    viewers.show(bids(2, 3), 5.01)
    viewers.add(["bob"])
    assert seen(viewers.show((snapshot_frame(item(9)),), 5.02)) == {
        "ann": [("snapshot", 9, None)],
        "bob": [("snapshot", 9, None)],
    }
    assert viewers.release(6.0) == []


def test_no_limit() -> None:
    viewers = conflated("ann", rate=0)
    for now_s in (5.0, 5.0, 5.0):
        assert len(seen(viewers.show(bids(1, 50), now_s))["ann"]) == 50


class TestNewcomers:
    def test_each_is_told_only_of_what_it_has_not_seen(self) -> None:
        viewers = conflated("ann")
        viewers.show(bids(1, 1), 5.0)
        viewers.show(bids(2, 3), 5.01)
        viewers.add(["bob"])
        viewers.show(bids(4, 4), 5.02)
        viewers.add(["cid"])
        viewers.add(["dan"])
        assert len(viewers) == 4
        assert set(viewers.everybody()) == {"ann", "bob", "cid", "dan"}
        assert seen(viewers.flush(5.1)) == {"ann": [("state", 4, 3)], "bob": [("bid", 4, None)]}
        assert set(seen(viewers.show(bids(5, 5), 6.0))) == {"ann", "bob", "cid", "dan"}

    def test_what_does_not_wait_is_for_all(self) -> None:
        viewers = conflated("ann")
        viewers.show(bids(1, 1), 5.0)
        viewers.show(bids(2, 3), 5.01)
        viewers.add(["bob"])
        assert seen(viewers.show((event_frame(closed(4)),), 5.02)) == {
            "ann": [("state", 3, 2), ("closed", 4, None)],
            "bob": [("closed", 4, None)],
        }

    def test_who_leaves_gets_nothing_more(self) -> None:
        viewers = conflated("ann")
        viewers.show(bids(1, 1), 5.0)
        viewers.show(bids(2, 3), 5.01)
        viewers.add(["bob"])
        viewers.show(bids(4, 5), 5.02)
        viewers.discard("ann")
        viewers.discard("nobody")
        assert seen(viewers.flush(5.1)) == {"bob": [("state", 5, 2)]}

    def test_nothing_waits_where_nobody_is_left(self) -> None:
        viewers = conflated("ann")
        viewers.show(bids(1, 1), 5.0)
        viewers.show(bids(2, 3), 5.01)
        viewers.discard("ann")
        assert viewers.due_s is None
        assert viewers.show(bids(4, 4), 5.02) == []
        viewers.add(["bob"])
        assert seen(viewers.show(bids(5, 6), 5.1)) == {"bob": [("bid", 5, None), ("bid", 6, None)]}


@given(
    steps=st.lists(st.tuples(st.integers(0, 300), st.integers(1, 6)), max_size=25),
    rate=st.sampled_from([1.0, 3.0, 10.0, 20.0]),
)
def test_over_any_time_no_more_frames_than_the_rate_allows_and_one_group(
    steps: list[tuple[int, int]], rate: float
) -> None:
    viewers = conflated("ann", rate=rate)
    sent_s: list[float] = []
    now_s, seq = 0.0, 0

    def note(sends: list[Send[str]]) -> None:
        sent_s.extend(now_s for send in sends for _ in send.frames)

    for after_ms, count in steps:
        target_s = now_s + after_ms / 1000
        if viewers.due_s is not None and viewers.due_s <= target_s:
            now_s = max(now_s, viewers.due_s)
            note(viewers.flush(now_s))
            assert viewers.due_s is None
        now_s = target_s
        note(viewers.show(bids(seq + 1, seq + count), now_s))
        seq += count
    for first in range(len(sent_s)):
        for last in range(first, len(sent_s)):
            allowed = (sent_s[last] - sent_s[first]) * rate + GROUP_MAX
            # Timers may fire a millisecond early.
            assert last - first + 1 <= allowed + 0.001 * rate * (last - first + 1) + 1e-6
