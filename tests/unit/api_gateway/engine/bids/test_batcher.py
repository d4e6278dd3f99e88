from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from api_gateway.engine.bids.batcher import BIDS_PER_CALL_MAX, BIDS_PER_FLUSH_MAX, Batcher, PendingBid
from api_gateway.engine.bids.pending_verdict import PendingVerdict
from api_gateway.engine.bids.queue_bound import QueueBound


def bid(item_id: str, number: int) -> PendingBid:
    return PendingBid(item_id, "ada", f"b-{number}", number, None, None, False, PendingVerdict())


def batcher(queue_max: int, *, calls_per_item: int = 1) -> Batcher:
    return Batcher(QueueBound(queue_max=queue_max, wait_s=0), calls_per_item=calls_per_item)


def test_an_idle_batcher_flushes_at_once() -> None:
    queue = batcher(10)
    assert queue.take() == []
    first = bid("a", 1)
    assert queue.offer(first)
    assert queue.take() == [[first]]
    assert len(queue) == 0


def test_bids_wait_while_a_flush_is_in_flight_and_go_together() -> None:
    queue = batcher(10)
    queue.offer(bid("a", 0))
    queue.take()
    waiting = [bid("a", 1), bid("b", 2), bid("a", 3)]
    for one in waiting:
        queue.offer(one)
    assert queue.take() == []
    queue.done()
    assert queue.take() == [[waiting[0], waiting[2]], [waiting[1]]]


def test_the_bound_is_told_how_many_are_in_flight_and_how_many_go_on_waiting() -> None:
    taken: list[tuple[int, int]] = []

    class Bound(QueueBound):
        def taken(self, bids: int, left: int) -> None:
            taken.append((bids, left))

    queue = Batcher(Bound(queue_max=10_000, wait_s=0))
    for number in range(BIDS_PER_CALL_MAX + 7):
        queue.offer(bid("a", number))
    queue.take()
    assert taken == [(BIDS_PER_CALL_MAX, 7)]


def test_the_queue_is_bounded() -> None:
    queue = batcher(2)
    assert [queue.offer(bid("a", number)) for number in range(3)] == [True, True, False]
    assert queue.is_full()
    queue.take()
    assert not queue.is_full()
    assert queue.offer(bid("a", 4)), "what is in flight no longer waits"


def test_what_is_left_over_of_an_item_goes_behind_the_others_and_before_what_comes_later() -> None:
    queue = batcher(10_000)
    busy = [bid("busy", number) for number in range(BIDS_PER_CALL_MAX + 2)]
    others = [bid(f"other-{number}", number) for number in range(BIDS_PER_FLUSH_MAX)]
    for one in [*busy, *others]:
        queue.offer(one)
    first = queue.take()
    assert first[0] == busy[:BIDS_PER_CALL_MAX]
    queue.offer(bid("late", 1))
    newest = bid("busy", 10_000)
    queue.offer(newest)
    queue.done()
    second = queue.take()
    waited = BIDS_PER_FLUSH_MAX - (len(first) - 1)
    assert [call[0].item_id for call in second[:waited]] == [one.item_id for one in others[-waited:]]
    assert second[waited] == [*busy[BIDS_PER_CALL_MAX:], newest], "in the order in which they came"
    assert [call[0].item_id for call in second[waited + 1 :]] == ["late"]


def test_a_flush_has_no_more_than_is_decided_in_the_time_of_a_standing_queue() -> None:
    now_s = 0.0
    bound = QueueBound(queue_max=10_000, wait_s=1.0, standing_s=0.1, clock=lambda: now_s)
    queue = Batcher(bound)

    def take() -> int:
        """How many bids are in the next flush, of which each is on an item of its own."""
        for number in range(1_500):
            queue.offer(bid(f"item-{number}", number))
        return sum(map(len, queue.take()))

    assert take() == 1_500, "nothing is known yet"
    now_s = 0.3
    queue.done()
    assert take() == 500


def test_a_busy_item_does_not_starve_the_others() -> None:
    queue = batcher(10_000)
    for number in range(BIDS_PER_CALL_MAX * 12):
        queue.offer(bid("busy", number))
    queue.offer(bid("quiet", 1))
    assert [call[0].item_id for call in queue.take()] == ["busy", "quiet"]


def test_one_item_has_the_room_that_others_leave() -> None:
    queue = batcher(100_000, calls_per_item=3)
    busy = [bid("busy", number) for number in range(BIDS_PER_CALL_MAX * 3 + 10)]
    quiet = bid("quiet", 1)
    for one in [*busy, quiet]:
        queue.offer(one)
    first, second, third, rest = (busy[at : at + BIDS_PER_CALL_MAX] for at in range(0, len(busy), BIDS_PER_CALL_MAX))
    assert queue.take() == [first, [quiet], second, third]
    queue.done()
    assert queue.take() == [rest]


def test_one_item_has_no_room_that_others_need() -> None:
    queue = batcher(100_000, calls_per_item=8)
    for number in range(BIDS_PER_CALL_MAX * 8):
        queue.offer(bid("busy", number))
    for number in range(BIDS_PER_FLUSH_MAX):
        queue.offer(bid(f"other-{number}", number))
    items = [call[0].item_id for call in queue.take()]
    assert items.count("busy") == 1
    assert len(items) == 1 + BIDS_PER_FLUSH_MAX - BIDS_PER_CALL_MAX


@given(st.lists(st.integers(0, 20), max_size=60), st.integers(1, 5_000), st.integers(1, 8))
def test_every_bid_is_flushed_once_in_order(items: list[int], copies: int, calls_per_item: int) -> None:
    queue = batcher(10**9, calls_per_item=calls_per_item)
    copies = min(copies, 300)
    sent: dict[str, list[str]] = {}
    number = 0
    for item in items:
        for _ in range(copies if item == 0 else 1):
            number += 1
            queue.offer(bid(f"i{item}", number))
            sent.setdefault(f"i{item}", []).append(f"b-{number}")
    flushed: dict[str, list[str]] = {}
    while calls := queue.take():
        assert sum(map(len, calls)) <= BIDS_PER_FLUSH_MAX + BIDS_PER_CALL_MAX
        assert max(Counter(call[0].item_id for call in calls).values()) <= calls_per_item
        for call in calls:
            assert 0 < len(call) <= BIDS_PER_CALL_MAX
            assert len({one.item_id for one in call}) == 1
            flushed.setdefault(call[0].item_id, []).extend(one.bid_id for one in call)
        queue.done()
    assert flushed == sent
    assert len(queue) == 0
