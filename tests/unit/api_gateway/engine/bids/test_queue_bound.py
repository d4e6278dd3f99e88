"""How many bids may wait, by how long flushes took, on a clock of the test's own."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from api_gateway.contract.schemas import BATCH_MAX
from api_gateway.engine.bids.batcher import BIDS_PER_FLUSH_MAX
from api_gateway.engine.bids.queue_bound import ALWAYS_MAX, QueueBound

WAIT_S = 0.2
QUEUE_MAX = 20_000


class World:
    """A queue with its bound, and Redis, which decides so many bids a second."""

    def __init__(self, *, queue_max: int = QUEUE_MAX, wait_s: float = WAIT_S) -> None:
        self.now_s = 100.0
        self.bound = QueueBound(queue_max=queue_max, wait_s=wait_s, clock=lambda: self.now_s)

    def flush(self, bids: int, *, rate: float, left: int = 0) -> None:
        self.bound.taken(bids, left)
        self.now_s += bids / rate
        self.bound.done()


def test_before_anything_is_known_only_the_hard_bound_holds() -> None:
    world = World()
    assert world.bound.admits(QUEUE_MAX - 1)
    assert not world.bound.admits(QUEUE_MAX)


def test_as_many_may_wait_as_are_decided_in_the_time() -> None:
    for rate in (3_000, 30_000):
        world = World()
        world.flush(1_000, rate=rate)
        room = int(rate * WAIT_S)
        assert abs(world.bound.waiting_max - room) <= 1
        assert world.bound.admits(world.bound.waiting_max - 1)
        assert not world.bound.admits(world.bound.waiting_max)


def test_what_is_in_flight_is_waited_for_too() -> None:
    world = World()
    world.flush(1_000, rate=20_000)
    world.bound.taken(2_000, 0)
    assert abs(world.bound.waiting_max - (int(20_000 * WAIT_S) - 2_000)) <= 1


def test_the_rate_follows_what_flushes_take() -> None:
    world = World()
    for _ in range(10):
        world.flush(1_000, rate=30_000)
    for _ in range(10):
        world.flush(1_000, rate=6_000)
    assert world.bound.rate < 6_100
    for _ in range(10):
        world.flush(1_000, rate=30_000)
    assert world.bound.rate > 29_000


def test_small_flushes_do_not_show_what_could_be_decided() -> None:
    world = World()
    world.flush(1, rate=1_000)
    assert world.bound.waiting_max == QUEUE_MAX, "an idle gateway takes a burst"
    world.flush(1_000, rate=20_000)
    before = world.bound.waiting_max
    for _ in range(50):
        world.flush(1, rate=1_000)
    assert world.bound.waiting_max == before


def test_a_small_flush_that_leaves_bids_behind_shows_it() -> None:
    world = World()
    world.flush(100, rate=5_000, left=50)
    assert abs(world.bound.rate - 5_000) < 1


def test_after_a_stall_small_flushes_raise_the_rate_again() -> None:
    world = World()
    world.flush(300, rate=150)
    assert world.bound.waiting_max == ALWAYS_MAX
    began_s = world.now_s
    while world.bound.rate < 10_000:
        world.flush(30, rate=15_000)
    assert world.now_s - began_s < 0.1


def test_what_one_request_brings_always_may_wait() -> None:
    world = World()
    world.flush(2_000, rate=10)
    world.bound.taken(256, 0)
    world.now_s += 60
    assert world.bound.admits(ALWAYS_MAX - 1)
    assert not world.bound.admits(ALWAYS_MAX)
    assert ALWAYS_MAX >= BATCH_MAX, "an idle gateway takes every batch whole"


def test_while_a_flush_stands_still_no_queue_builds_up() -> None:
    world = World()
    world.flush(1_000, rate=30_000)
    world.bound.taken(1_000, 0)
    world.now_s += WAIT_S / 2
    assert world.bound.admits(990), "it may be half of what is decided in the time"
    assert not world.bound.admits(1_010)
    world.now_s += WAIT_S / 2
    assert not world.bound.admits(ALWAYS_MAX)
    world.bound.done()
    world.now_s += 60
    assert world.bound.admits(ALWAYS_MAX), "none is in flight"


def test_the_hard_bound_is_never_passed() -> None:
    for queue_max in (1, 100, 1_000):
        world = World(queue_max=queue_max)
        world.flush(1_000, rate=1_000_000)
        assert not world.bound.admits(queue_max)
        assert world.bound.admits(queue_max - 1)


def test_without_a_time_only_the_hard_bound_holds() -> None:
    world = World(wait_s=0)
    world.flush(2_000, rate=10)
    world.bound.taken(2_000, 0)
    world.now_s += 60
    assert world.bound.admits(QUEUE_MAX - 1)
    assert not world.bound.admits(QUEUE_MAX)


_A_FLUSH = st.tuples(
    st.integers(1, BIDS_PER_FLUSH_MAX),
    st.sampled_from([-1.0, 0.0, 1e-9, 1e-4, 0.01, 0.05, 0.3, 2.0, 600.0]),
    st.sampled_from([0, 1, 5_000]),
)


@settings(max_examples=200, deadline=None)
@given(st.lists(_A_FLUSH, max_size=30), st.integers(1, 30_000), st.sampled_from([0.0, 0.001, 0.2, 5.0]))
def test_whatever_flushes_took_the_bound_is_one_and_comes_back(
    flushes: list[tuple[int, float, int]], queue_max: int, wait_s: float
) -> None:
    """Also on a clock that stands still or goes back, and with flushes that fail at once or after minutes."""
    world = World(queue_max=queue_max, wait_s=wait_s)
    for bids, took_s, left in flushes:
        world.bound.taken(bids, left)
        world.now_s += took_s
        assert world.bound.admits(min(ALWAYS_MAX, queue_max) - 1)
        assert not world.bound.admits(queue_max)
        world.bound.done()
        assert world.bound.rate > 0
        assert min(ALWAYS_MAX, queue_max) <= world.bound.waiting_max <= queue_max
    for _ in range(40):
        world.flush(20, rate=20_000)
    assert world.bound.rate > 19_000
    assert world.bound.waiting_max >= min(queue_max, 19_000 * wait_s)


@settings(max_examples=40, deadline=None)
@given(st.integers(1_000, 40_000), st.floats(1.2, 20), st.floats(0.0005, 0.004))
def test_whatever_is_offered_the_wait_is_bounded_and_redis_has_enough_to_do(
    rate: int, times: float, overhead_s: float
) -> None:
    """Bids come ``times`` as fast as Redis decides them, from the start on, when nothing is known of it. A flush costs
    something of its own, and something for each bid. At up to three times as many, the first ones wait no longer."""
    world = World()
    bound = world.bound
    waiting: list[float] = []
    in_flight: list[float] = []
    ends_s = arrived = 0.0
    decided, longest_s = 0, 0.0
    began_s = world.now_s
    counts_from_s = began_s if times <= 3 else began_s + 1.5
    while world.now_s < began_s + 2.5:
        world.now_s += 0.001
        if in_flight and world.now_s >= ends_s:
            bound.done()
            decided += len(in_flight)
            if in_flight[0] >= counts_from_s:
                longest_s = max(longest_s, world.now_s - in_flight[0])
            in_flight = []
        if not in_flight and waiting:
            in_flight, waiting = waiting[:BIDS_PER_FLUSH_MAX], waiting[BIDS_PER_FLUSH_MAX:]
            bound.taken(len(in_flight), len(waiting))
            ends_s = world.now_s + overhead_s + len(in_flight) / rate
        arrived += rate * times * 0.001
        while arrived >= 1 and bound.admits(len(waiting)):
            arrived -= 1
            waiting.append(world.now_s)
        arrived %= 1
    assert longest_s <= 1.5 * max(WAIT_S, 2 * ALWAYS_MAX / rate)
    assert decided >= 0.8 * 2.5 * rate
