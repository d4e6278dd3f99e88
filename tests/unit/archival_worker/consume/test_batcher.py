"""What the worker is told to do, and when: bounded by rows, by time and by what was asked for."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from archival_worker.consume.batcher import Batcher, BatchLimits, Pace, Pull, Wait, Write
from tests.searching import examples

LIMITS = BatchLimits(rows_max=10, linger_s=0.5, pull_messages=4)


def fresh() -> Batcher[str]:
    """A batcher that has made its first pull."""
    batcher: Batcher[str] = Batcher(LIMITS)
    assert batcher.next(0.0) == Pull(4)
    return batcher


def test_it_asks_once_and_then_waits_for_an_answer() -> None:
    batcher = fresh()
    assert batcher.next(0.0) == Wait(None)
    assert batcher.next(1_000.0) == Wait(None)


def test_the_first_message_sets_the_deadline_and_later_ones_do_not_move_it() -> None:
    batcher = fresh()
    assert batcher.received("a", 1, 10.0)
    assert batcher.next(10.0) == Wait(10.5)
    assert not batcher.received("b", 1, 10.4), "nothing to do before the deadline"
    assert batcher.next(10.49) == Wait(10.5)
    assert batcher.next(10.5) == Write(["a", "b"])
    assert batcher.next(10.5) == Wait(None)


def test_a_full_batch_is_written_at_once_and_the_rest_waits_for_its_own_deadline() -> None:
    batcher = fresh()
    batcher.received("a", 6, 10.0)
    assert batcher.received("b", 6, 10.2)
    assert batcher.next(10.2) == Write(["a"])
    assert batcher.next(10.2) == Wait(10.7)


def test_a_message_larger_than_a_batch_is_a_batch() -> None:
    batcher = fresh()
    batcher.received("large", 25, 10.0)
    batcher.received("b", 1, 10.0)
    assert batcher.next(10.0) == Write(["large"])


def test_the_next_pull_comes_before_the_write() -> None:
    batcher = fresh()
    for name in "abc":
        batcher.received(name, 5, 10.0)
    assert batcher.received("d", 1, 10.0), "the last one that was asked for"
    assert batcher.next(10.0) == Pull(4)
    assert batcher.next(10.0) == Write(["a", "b"])


def test_nothing_is_asked_for_while_two_batches_wait() -> None:
    batcher = fresh()
    for name in "abcd":
        batcher.received(name, 5, 10.0)
    assert batcher.next(10.0) == Write(["a", "b"])
    assert batcher.next(10.0) == Pull(4)


def test_a_pull_that_the_stream_ended_is_made_again() -> None:
    batcher = fresh()
    batcher.pull_ended()
    assert not batcher.pulling
    assert batcher.next(3.0) == Pull(4)


def test_a_pull_asks_for_one_batch_or_for_two_where_none_waits() -> None:
    """As many messages as have so many rows, if they are like the last ones; with few rows each, as many as allowed."""
    batcher: Batcher[int] = Batcher(BatchLimits(rows_max=5_000, pull_messages=2_000))
    assert batcher.next(0.0) == Pull(2_000)
    for n in range(1_000):
        batcher.received(n, 10, 0.0)
    batcher.pull_ended()
    assert isinstance(batcher.next(0.0), Write), "two batches wait"
    assert batcher.is_full
    assert batcher.next(0.0) == Pull(500)
    assert isinstance(batcher.next(0.0), Write)
    assert not batcher.is_full
    batcher.pull_ended()
    assert batcher.next(0.0) == Pull(1_000)
    for n in range(400):
        batcher.received(n, 1, 0.0)
    batcher.pull_ended()
    assert batcher.next(0.0) == Pull(2_000), "they have one row each now"


def test_however_many_rows_messages_have_a_pull_asks_for_a_hundred() -> None:
    batcher: Batcher[str] = Batcher(BatchLimits(rows_max=5_000, pull_messages=2_000))
    batcher.next(0.0)
    batcher.received("large", 256, 0.0)
    batcher.pull_ended()
    assert batcher.next(0.0) == Pull(100)


def test_drained_messages_are_not_written() -> None:
    batcher = fresh()
    batcher.received("a", 6, 10.0)
    batcher.received("b", 6, 10.0)
    assert batcher.drain() == ["a", "b"]
    assert batcher.next(99.0) == Wait(None)


class AnyCourse(RuleBasedStateMachine):
    """Random arrivals, pauses and ends of pulls."""

    def __init__(self) -> None:
        super().__init__()
        self.batcher: Batcher[int] = Batcher(LIMITS)
        self.now_s = 0.0
        self.rows: dict[int, int] = {}
        self.arrived_s: dict[int, float] = {}
        self.written: list[int] = []
        self.owed = 0

    @precondition(lambda self: self.owed > 0)
    @rule(rows=st.integers(1, 14))
    def arrive(self, rows: int) -> None:
        number = len(self.rows)
        self.rows[number] = rows
        self.arrived_s[number] = self.now_s
        self.owed -= 1
        self.batcher.received(number, rows, self.now_s)

    @rule(seconds=st.floats(0, 1))
    def pass_time(self, seconds: float) -> None:
        self.now_s += seconds

    @rule()
    def end_pull(self) -> None:
        self.owed = 0
        self.batcher.pull_ended()

    @rule()
    def act(self) -> None:
        effect = self.batcher.next(self.now_s)
        waiting = sorted(set(self.rows) - set(self.written))
        if isinstance(effect, Pull):
            assert self.owed == 0, "one pull at a time"
            self.owed = effect.messages
        elif isinstance(effect, Write):
            assert effect.messages == waiting[: len(effect.messages)], "in order, each once"
            assert len(effect.messages) == 1 or sum(self.rows[n] for n in effect.messages) <= LIMITS.rows_max
            self.written += effect.messages
        elif waiting:
            assert effect.until_s is not None
            assert self.now_s < effect.until_s <= self.arrived_s[waiting[0]] + LIMITS.linger_s

    @invariant()
    def memory_is_bounded(self) -> None:
        waiting = [self.rows[n] for n in set(self.rows) - set(self.written)]
        assert self.batcher.waiting == len(waiting)
        assert sum(waiting) < 2 * LIMITS.rows_max + LIMITS.pull_messages * 14


TestAnyCourse = AnyCourse.TestCase
TestAnyCourse.settings = settings(max_examples=examples(60), stateful_step_count=40)


def test_batches_that_fail_get_smaller_and_grow_again() -> None:
    pace = Pace(1_000)
    batcher: Batcher[str] = Batcher(BatchLimits(rows_max=1_000, pull_messages=500), pace)
    assert batcher.next(0.0) == Pull(500)
    pace.failed(40)
    assert pace.rows == 20, "half of what was too much, not of what might have been"
    for _ in range(10):
        pace.failed(40)
    assert pace.rows == 1
    batcher.received("a", 1, 0.0)
    assert batcher.received("b", 1, 0.0), "two batches"
    assert batcher.next(0.0) == Write(["a"])
    batcher.pull_ended()
    assert batcher.next(0.0) == Pull(2), "no more than it will write soon"
    for _ in range(40):
        pace.succeeded()
    assert pace.rows == 1_000
