from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from api_gateway.engine.bids.batcher import BIDS_PER_CALL_MAX, BIDS_PER_FLUSH_MAX, Batcher, PendingBid
from api_gateway.engine.bids.pending_verdict import PendingVerdict


def bid(item_id: str, number: int) -> PendingBid:
    return PendingBid(item_id, "ada", f"b-{number}", number, None, None, False, PendingVerdict())


def test_an_idle_batcher_flushes_at_once() -> None:
    batcher = Batcher(queue_max=10)
    assert batcher.take() == []
    first = bid("a", 1)
    assert batcher.offer(first)
    assert batcher.take() == [[first]]
    assert len(batcher) == 0


def test_bids_wait_while_a_flush_is_in_flight_and_go_together() -> None:
    batcher = Batcher(queue_max=10)
    batcher.offer(bid("a", 0))
    batcher.take()
    waiting = [bid("a", 1), bid("b", 2), bid("a", 3)]
    for one in waiting:
        batcher.offer(one)
    assert batcher.take() == []
    batcher.done()
    assert batcher.take() == [[waiting[0], waiting[2]], [waiting[1]]]


def test_the_queue_is_bounded() -> None:
    batcher = Batcher(queue_max=2)
    assert [batcher.offer(bid("a", number)) for number in range(3)] == [True, True, False]
    batcher.take()
    assert batcher.offer(bid("a", 4)), "what is in flight no longer waits"


def test_what_is_left_over_of_an_item_goes_behind_the_others_and_before_what_comes_later() -> None:
    batcher = Batcher(queue_max=10_000)
    busy = [bid("busy", number) for number in range(BIDS_PER_CALL_MAX + 2)]
    others = [bid(f"other-{number}", number) for number in range(BIDS_PER_FLUSH_MAX)]
    for one in [*busy, *others]:
        batcher.offer(one)
    first = batcher.take()
    assert first[0] == busy[:BIDS_PER_CALL_MAX]
    batcher.offer(bid("late", 1))
    newest = bid("busy", 10_000)
    batcher.offer(newest)
    batcher.done()
    second = batcher.take()
    waited = BIDS_PER_FLUSH_MAX - (len(first) - 1)
    assert [call[0].item_id for call in second[:waited]] == [one.item_id for one in others[-waited:]]
    assert second[waited] == [*busy[BIDS_PER_CALL_MAX:], newest], "in the order in which they came"
    assert [call[0].item_id for call in second[waited + 1 :]] == ["late"]


def test_a_busy_item_does_not_starve_the_others() -> None:
    batcher = Batcher(queue_max=10_000)
    for number in range(BIDS_PER_CALL_MAX * 12):
        batcher.offer(bid("busy", number))
    batcher.offer(bid("quiet", 1))
    assert [call[0].item_id for call in batcher.take()] == ["busy", "quiet"]


@given(st.lists(st.integers(0, 20), max_size=60), st.integers(1, 5_000))
def test_every_bid_is_flushed_once_in_order(items: list[int], copies: int) -> None:
    batcher = Batcher(queue_max=10**9)
    copies = min(copies, 300)
    sent: dict[str, list[str]] = {}
    number = 0
    for item in items:
        for _ in range(copies if item == 0 else 1):
            number += 1
            batcher.offer(bid(f"i{item}", number))
            sent.setdefault(f"i{item}", []).append(f"b-{number}")
    flushed: dict[str, list[str]] = {}
    while calls := batcher.take():
        assert sum(map(len, calls)) <= BIDS_PER_FLUSH_MAX + BIDS_PER_CALL_MAX
        assert len({call[0].item_id for call in calls}) == len(calls)
        for call in calls:
            assert 0 < len(call) <= BIDS_PER_CALL_MAX
            assert len({one.item_id for one in call}) == 1
            flushed.setdefault(call[0].item_id, []).extend(one.bid_id for one in call)
        batcher.done()
    assert flushed == sent
    assert len(batcher) == 0
