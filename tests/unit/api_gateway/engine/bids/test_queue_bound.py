"""How many bids may wait, by how long flushes took, on a clock of the test's own."""

from __future__ import annotations

from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from api_gateway.contract.schemas import BATCH_MAX
from api_gateway.engine.bids.batcher import BIDS_PER_FLUSH_MAX
from api_gateway.engine.bids.queue_bound import ALWAYS_MAX, INTERVAL_S, STANDING_MAX, QueueBound

WAIT_S = 0.2
STANDING_S = 0.05
QUEUE_MAX = 20_000


class World:
    """A queue with its bound, and Redis, which decides so many bids a second."""

    def __init__(self, *, queue_max: int = QUEUE_MAX, wait_s: float = WAIT_S, standing_s: float = 0.0) -> None:
        self.now_s = self.began_s = 100.0
        self.busy = 0.0
        self.bound = QueueBound(
            queue_max=queue_max,
            wait_s=wait_s,
            standing_s=standing_s,
            core_clock=lambda: self.busy * (self.now_s - self.began_s),
            clock=lambda: self.now_s,
        )

    def flush(self, bids: int, *, rate: float, left: int = 0, is_decided: bool = True) -> None:
        self.bound.taken(bids, left)
        self.now_s += bids / rate
        self.bound.done(is_decided=is_decided)

    def hang(self, seconds: float) -> None:
        """Nothing is heard of the flush that is in flight, while bids come."""
        until_s = self.now_s + seconds
        for _ in range(1_000):
            self.now_s += seconds / 1_000
            self.bound.admits(0)
        self.now_s = until_s

    def come(self, bids: int, waiting: int = 0) -> int:
        """So many bids come at one moment. Returns how many are refused."""
        refused = 0
        for _ in range(bids):
            if self.bound.admits(waiting):
                waiting += 1
            else:
                refused += 1
        return refused


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


def test_a_small_flush_that_fails_at_once_is_no_quick_one() -> None:
    world = World()
    world.flush(1_000, rate=1_000)
    world.flush(30, rate=1_000_000, is_decided=False)
    assert abs(world.bound.rate - 1_000) < 1


def test_a_small_flush_that_is_quick_lowers_no_rate() -> None:
    """It counts, and so an older and larger one no longer does."""
    world = World()
    for bids, rate in ((4_000, 40_000), (256, 5_000), (256, 5_000), (256, 2_500)):
        world.flush(bids, rate=rate)
    before = world.bound.rate
    world.flush(200, rate=2 * before)
    assert world.bound.rate >= before
    world.flush(256, rate=1_000)
    assert world.bound.rate < before, "a full one may"


def test_a_small_flush_that_leaves_bids_behind_shows_it() -> None:
    world = World()
    world.flush(100, rate=5_000, left=50)
    assert abs(world.bound.rate - 5_000) < 1


def test_a_single_stall_says_nothing_of_the_next_flush() -> None:
    world = World()
    for _ in range(5):
        world.flush(1_000, rate=20_000)
    world.flush(300, rate=200)
    assert abs(world.bound.rate - 20_000) < 1
    world.flush(300, rate=200)
    assert world.bound.rate < 10_000, "two of the last four do"


def test_a_stall_with_few_bids_tells_nothing_once_it_is_over() -> None:
    """Else a quiet gateway would know no rate but that of flushes of one bid, until the burst is there."""
    world = World()
    world.flush(3, rate=1)
    for _ in range(10):
        world.flush(1, rate=500)
    assert world.bound.waiting_max == QUEUE_MAX


@pytest.mark.parametrize("in_flight", [65, 255])
def test_stalls_of_which_one_is_long_ago_tell_nothing_of_the_next_flush(in_flight: int) -> None:
    """Flushes that are neither full nor quicker than the others are not remembered, so a stall of last week would be
    one of the last four."""
    world = World(wait_s=1.0, standing_s=0.15)
    for _ in range(5):
        world.flush(300, rate=10_000)
    for _ in range(4):
        for _ in range(100):
            world.flush(in_flight, rate=9_000)
        world.flush(in_flight, rate=in_flight / 0.5)
        assert world.bound.rate > 9_000


def test_the_first_stall_of_a_quiet_gateway_is_not_its_rate() -> None:
    world = World(wait_s=1.0, standing_s=0.15)
    world.flush(100, rate=200)
    assert world.bound.waiting_max == QUEUE_MAX


def test_a_flush_of_which_nothing_was_decided_is_not_a_quick_one() -> None:
    """Redis refuses the connection, say. When it is there again, all come at once who were told to try again."""
    world = World()
    for _ in range(5):
        world.flush(1_000, rate=3_000)
    for _ in range(5):
        world.flush(300, rate=3_000_000, is_decided=False)
    assert abs(world.bound.rate - 3_000) < 1
    for _ in range(5):
        world.flush(300, rate=100, is_decided=False)
    assert world.bound.rate < 110, "one that was waited for shows that nothing is decided"


@pytest.mark.parametrize("paused_s", [0.3, 1.0, 30.0])
@pytest.mark.parametrize("in_flight", [1, 50, 300])
def test_a_gateway_that_was_suspended_takes_what_came_meanwhile(paused_s: float, in_flight: int) -> None:
    """It reads all of these before it hears that Redis has answered long ago: a suspended process, a machine that moved
    to another host."""
    world = World(wait_s=1.0, standing_s=0.15)
    for _ in range(5):
        world.flush(300, rate=10_000)
    world.bound.taken(in_flight, 0)
    world.come(10)
    world.now_s += paused_s
    assert world.come(5_000) == 0


def test_a_suspended_gateway_soon_sees_that_redis_hangs_too() -> None:
    world = World(wait_s=1.0, standing_s=0.15)
    for _ in range(5):
        world.flush(300, rate=10_000)
    world.bound.taken(50, 0)
    world.now_s += 1.0
    world.hang(0.25)
    assert world.come(600) == 600 - ALWAYS_MAX


def test_a_hanging_redis_is_seen_by_few_bids_a_second_too() -> None:
    """They come 20 ms apart, which is no sign that the gateway stood still."""
    world = World()
    world.flush(1_000, rate=20_000)
    world.bound.taken(300, 0)
    for _ in range(int(1.5 * WAIT_S / 0.02)):
        world.now_s += 0.02
        world.bound.admits(0)
    assert not world.bound.admits(ALWAYS_MAX)


def test_a_flush_is_not_as_old_as_the_one_before() -> None:
    world = World(wait_s=1.0, standing_s=0.15)
    for _ in range(5):
        world.flush(300, rate=10_000)
    world.bound.taken(50, 0)
    world.hang(1.0)
    assert world.come(600) == 600 - ALWAYS_MAX
    world.bound.done()
    world.bound.taken(50, 0)
    assert world.come(5_000) == 0


def test_when_redis_is_quick_again_small_flushes_show_it() -> None:
    world = World()
    world.flush(300, rate=150)
    assert world.bound.waiting_max == ALWAYS_MAX
    began_s = world.now_s
    while world.bound.rate < 10_000:
        world.flush(30, rate=15_000)
    assert world.now_s - began_s < 0.1


def long_queue(world: World, *, seconds: float, rate: float = 10_000) -> None:
    """Flushes behind each of which 1,000 bids wait."""
    until_s = world.now_s + seconds
    while world.now_s < until_s:
        world.flush(1_000, rate=rate, left=1_000)


def test_a_queue_that_stays_long_gets_the_lower_bound() -> None:
    world = World(standing_s=STANDING_S)
    long_queue(world, seconds=INTERVAL_S * 0.9)
    assert abs(world.bound.waiting_max - 10_000 * WAIT_S) <= 1, "it may be a burst"
    long_queue(world, seconds=INTERVAL_S * 0.3)
    assert abs(world.bound.waiting_max - 10_000 * STANDING_S) <= 1


def test_those_left_behind_small_flushes_are_of_the_queue() -> None:
    """All of one item, in a cluster, where a flush has one call of it."""
    world = World(standing_s=STANDING_S)
    for _ in range(100):
        world.flush(200, rate=10_000, left=800)
    assert abs(world.bound.waiting_max - 10_000 * STANDING_S) <= 1


@pytest.mark.parametrize(("busy", "is_lower"), [(1.0, False), (0.96, False), (0.94, True)])
def test_where_the_gateways_own_core_has_no_time_the_bound_stays(busy: float, is_lower: bool) -> None:
    """Refusals would take as much of it as the bids do."""
    world = World(standing_s=STANDING_S)
    world.busy = busy
    long_queue(world, seconds=3 * INTERVAL_S)
    assert abs(world.bound.waiting_max - 10_000 * (STANDING_S if is_lower else WAIT_S)) <= 1


def test_what_the_core_did_before_the_queue_was_long_does_not_count() -> None:
    world = World(standing_s=STANDING_S)
    world.busy, world.began_s = 0.5, world.now_s - 3_600
    long_queue(world, seconds=1.5 * INTERVAL_S)
    assert abs(world.bound.waiting_max - 10_000 * STANDING_S) <= 1


def test_it_is_looked_again_whose_time_is_short() -> None:
    world = World(standing_s=STANDING_S)
    long_queue(world, seconds=1.5 * INTERVAL_S)
    assert abs(world.bound.waiting_max - 10_000 * STANDING_S) <= 1
    # From now on the thread always wants its core.
    world.busy, world.began_s = 1.0, world.now_s
    long_queue(world, seconds=2.5 * INTERVAL_S)
    assert abs(world.bound.waiting_max - 10_000 * WAIT_S) <= 1
    world.busy = 0.0
    long_queue(world, seconds=2.5 * INTERVAL_S)
    assert abs(world.bound.waiting_max - 10_000 * STANDING_S) <= 1


def test_a_queue_that_was_short_meanwhile_is_no_standing_one() -> None:
    world = World(standing_s=STANDING_S)
    for _ in range(5):
        long_queue(world, seconds=INTERVAL_S * 0.6)
        world.flush(int(10_000 * STANDING_S / 2), rate=10_000)
    assert abs(world.bound.waiting_max - 10_000 * WAIT_S) <= 1


def test_a_standing_queue_is_over_when_it_is_short_and_nothing_was_refused() -> None:
    world = World(standing_s=STANDING_S)
    long_queue(world, seconds=2 * INTERVAL_S)
    for _ in range(20):
        assert not world.bound.admits(QUEUE_MAX)
        world.flush(100, rate=10_000)
    assert world.bound.waiting_max == 10_000 * STANDING_S, "it is short only because bids were refused"
    while world.bound.waiting_max < 10_000 * WAIT_S - 1:
        world.flush(100, rate=10_000)
        assert world.now_s < 200
    long_queue(world, seconds=INTERVAL_S * 0.9)
    assert abs(world.bound.waiting_max - 10_000 * WAIT_S) <= 1, "a new burst may be as long as the first one"


def standing(*, rate: float = 10_000) -> World:
    """The last flush of a standing queue has just ended, with nothing behind it; nothing was refused."""
    world = World(standing_s=STANDING_S)
    long_queue(world, seconds=2 * INTERVAL_S, rate=rate)
    world.flush(400, rate=rate)
    assert abs(world.bound.waiting_max - rate * STANDING_S) <= 1
    return world


def test_an_empty_queue_is_short_also_when_its_last_flush_was_large() -> None:
    """Else the first burst after an hour without a bid would meet the bound of the queue before."""
    world = standing()
    world.now_s += 3_600
    assert all(world.bound.admits(waiting) for waiting in range(int(10_000 * WAIT_S)))
    assert not world.bound.admits(int(10_000 * WAIT_S))


def test_an_empty_queue_is_a_standing_one_until_its_refusals_are_old() -> None:
    world = standing()
    assert not world.bound.admits(QUEUE_MAX)
    world.now_s += STANDING_S / 2
    assert world.bound.admits(0)
    assert not world.bound.admits(int(10_000 * STANDING_S))
    world.now_s += 2 * STANDING_S
    assert world.bound.admits(0)
    assert world.bound.admits(int(10_000 * STANDING_S))


def test_while_a_large_flush_is_in_flight_the_queue_is_long_though_nothing_waits() -> None:
    world = standing()
    world.bound.taken(400, 0)
    world.now_s += 0.04
    assert world.bound.admits(0)
    world.bound.done()
    assert world.bound.waiting_max <= 10_000 * STANDING_S


def test_large_batches_with_pauses_between_them_are_no_standing_queue() -> None:
    """A flush has all of a batch, so no flush shows that the queue is empty for most of the time."""
    world = World(wait_s=1.0, standing_s=0.15)
    for _ in range(5):
        for batch in (400, 400, 400, 800):
            came_s = world.now_s
            assert all(world.bound.admits(waiting) for waiting in range(batch))
            for left in range(batch - 400, -1, -400):
                world.flush(400, rate=3_000, left=left)
            world.now_s = came_s + 1


def test_where_little_is_decided_fewer_always_may_wait_in_a_standing_queue() -> None:
    world = World(standing_s=STANDING_S)
    long_queue(world, seconds=5, rate=1_000)
    assert world.bound.waiting_max == STANDING_MAX
    world.bound.taken(256, 0)
    world.hang(60)
    assert world.bound.admits(STANDING_MAX - 1)
    assert not world.bound.admits(STANDING_MAX)


def test_few_bids_are_no_long_queue_however_slowly_they_are_decided() -> None:
    world = World(standing_s=STANDING_S)
    world.flush(300, rate=300)
    for _ in range(20):
        world.flush(64, rate=300)
    assert world.bound.waiting_max == ALWAYS_MAX
    for _ in range(20):
        world.flush(65, rate=300)
    assert world.bound.waiting_max == STANDING_MAX


@pytest.mark.parametrize("standing_s", [0.0, WAIT_S])
def test_without_a_bound_of_its_own_a_standing_queue_may_have_as_many_as_any(standing_s: float) -> None:
    world = World(standing_s=standing_s)
    long_queue(world, seconds=20, rate=1_000)
    assert world.bound.waiting_max == ALWAYS_MAX


def test_a_bound_of_a_standing_queue_that_is_no_lower_is_none() -> None:
    for standing_s in (WAIT_S, 2 * WAIT_S):
        world = World(standing_s=standing_s)
        for _ in range(50):
            world.flush(1_000, rate=10_000, left=9_000)
        assert abs(world.bound.waiting_max - 10_000 * WAIT_S) <= 1


def test_a_flush_has_what_may_wait_in_a_standing_queue() -> None:
    world = World(standing_s=STANDING_S)
    assert world.bound.flush_max > BIDS_PER_FLUSH_MAX, "nothing is known yet"
    world.flush(1_000, rate=10_000)
    assert abs(world.bound.flush_max - 10_000 * STANDING_S) < 1
    world = World(standing_s=STANDING_S)
    world.flush(1_000, rate=100)
    assert world.bound.flush_max == 256


def test_what_one_request_brings_always_may_wait() -> None:
    world = World()
    world.flush(2_000, rate=10)
    world.bound.taken(256, 0)
    world.hang(60)
    assert world.bound.admits(ALWAYS_MAX - 1)
    assert not world.bound.admits(ALWAYS_MAX)
    assert ALWAYS_MAX >= BATCH_MAX, "an idle gateway takes every batch whole"


def test_while_a_flush_stands_still_no_queue_builds_up() -> None:
    world = World()
    world.flush(1_000, rate=30_000)
    world.bound.taken(1_000, 0)
    world.hang(WAIT_S / 2)
    assert world.bound.admits(990), "it may be half of what is decided in the time"
    assert not world.bound.admits(1_010)
    world.hang(WAIT_S / 2)
    assert not world.bound.admits(ALWAYS_MAX)
    world.bound.done()
    world.now_s += 60
    assert world.bound.admits(ALWAYS_MAX), "none is in flight"


def test_of_a_standing_queue_it_counts_by_the_lower_bound() -> None:
    world = World(wait_s=1.0, standing_s=0.15)
    long_queue(world, seconds=2 * INTERVAL_S, rate=20_000)
    world.bound.taken(1_000, 1_000)
    assert world.bound.admits(1_990)
    world.hang(0.1)
    assert world.bound.admits(490), "1,000 in flight for 100 ms are a rate of 10,000"
    assert not world.bound.admits(510)


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
@given(
    st.lists(_A_FLUSH, max_size=30),
    st.integers(1, 30_000),
    st.sampled_from([0.0, 0.001, 0.2, 5.0]),
    st.sampled_from([0.0, 0.0001, 0.1, 9.0]),
)
def test_whatever_flushes_took_the_bound_is_one_and_comes_back(
    flushes: list[tuple[int, float, int]], queue_max: int, wait_s: float, standing_s: float
) -> None:
    """Also on a clock that stands still or goes back, and with flushes that fail at once or after minutes."""
    world = World(queue_max=queue_max, wait_s=wait_s, standing_s=standing_s)
    for bids, took_s, left in flushes:
        world.bound.taken(bids, left)
        world.now_s += took_s
        assert world.bound.admits(min(STANDING_MAX, queue_max) - 1)
        assert not world.bound.admits(queue_max)
        world.bound.done()
        assert world.bound.rate > 0
        assert world.bound.flush_max >= 256
        assert min(STANDING_MAX, queue_max) <= world.bound.waiting_max <= queue_max
    # Until its refusals are old, a queue that stood is still taken for one.
    for _ in range(40 + int(min(standing_s, wait_s or 9.0) * 1_000)):
        world.flush(20, rate=20_000)
    assert world.bound.rate > 19_000
    assert world.bound.waiting_max >= min(queue_max, 19_000 * wait_s)


class Offered(NamedTuple):
    """When the bids that were decided came, from the beginning on, and how long they waited; and how many were
    refused."""

    decided: list[tuple[float, float]]
    refused: int


def offer(world: World, *phases: tuple[float, float], rate: float, overhead_s: float) -> Offered:
    """Bids that come so many times as fast as Redis decides them, for so many seconds. A flush costs something of its
    own, and something for each bid."""
    bound = world.bound
    waiting: list[float] = []
    in_flight: list[float] = []
    decided: list[tuple[float, float]] = []
    refused = 0
    ends_s = arrived = 0.0
    began_s = until_s = world.now_s
    for times, seconds in phases:
        until_s += seconds
        while world.now_s < until_s:
            world.now_s += 0.001
            if in_flight and world.now_s >= ends_s:
                bound.done()
                decided += [(came_s - began_s, world.now_s - came_s) for came_s in in_flight]
                in_flight = []
            if not in_flight and waiting:
                most = int(min(BIDS_PER_FLUSH_MAX, bound.flush_max))
                in_flight, waiting = waiting[:most], waiting[most:]
                bound.taken(len(in_flight), len(waiting))
                ends_s = world.now_s + overhead_s + len(in_flight) / rate
            arrived += rate * times * 0.001
            while arrived >= 1 and bound.admits(len(waiting)):
                arrived -= 1
                waiting.append(world.now_s)
            refused += int(arrived)
            arrived %= 1
    return Offered(decided, refused)


@settings(max_examples=40, deadline=None)
@given(st.integers(1_000, 40_000), st.floats(1.2, 20), st.floats(0.0005, 0.004))
def test_whatever_is_offered_the_wait_is_bounded_and_redis_has_enough_to_do(
    rate: int, times: float, overhead_s: float
) -> None:
    """From the start on, when nothing is known of it. At up to three times as many, the first ones wait no longer."""
    decided, _ = offer(World(), (times, 2.5), rate=rate, overhead_s=overhead_s)
    counts_from_s = 0.0 if times <= 3 else 1.5
    longest_s = max(took_s for came_s, took_s in decided if came_s >= counts_from_s)
    assert longest_s <= 1.5 * max(WAIT_S, 2 * ALWAYS_MAX / rate)
    assert len(decided) >= 0.8 * 2.5 * rate


@settings(max_examples=30, deadline=None)
@given(st.integers(2_000, 20_000), st.floats(1.3, 5), st.floats(0.0005, 0.002))
def test_a_load_that_stays_above_the_capacity_is_decided_after_short_waits(
    rate: int, times: float, overhead_s: float
) -> None:
    world = World(wait_s=1.0, standing_s=0.15)
    decided, _ = offer(world, (times, 5), rate=rate, overhead_s=overhead_s)
    later = [took_s for came_s, took_s in decided if came_s >= 3]
    assert max(later) <= 1.4 * max(0.15, 2 * STANDING_MAX / rate)
    assert len(later) >= 0.8 * 1.8 * rate, "those of the last moments still wait"


@settings(max_examples=30, deadline=None)
@given(st.integers(2_000, 20_000), st.floats(0.0005, 0.002))
def test_a_burst_that_is_worked_off_within_a_second_is_decided_and_not_refused(rate: int, overhead_s: float) -> None:
    world = World(wait_s=1.0, standing_s=0.15)
    burst = ((0.5, 0.5), (1.6, 0.5), (0.1, 1.5))
    assert offer(world, *burst, rate=rate, overhead_s=overhead_s).refused == 0
    assert offer(world, *burst, rate=rate, overhead_s=overhead_s).refused == 0, "nor the next one"


@settings(max_examples=20, deadline=None)
@given(st.integers(2_000, 20_000), st.floats(0.2, 0.8), st.floats(0.0005, 0.002))
def test_below_the_capacity_nothing_is_refused(rate: int, times: float, overhead_s: float) -> None:
    world = World(wait_s=1.0, standing_s=0.15)
    assert offer(world, (times, 3), rate=rate, overhead_s=overhead_s).refused == 0


@settings(max_examples=20, deadline=None)
@given(st.integers(2_000, 20_000), st.floats(0.0005, 0.002))
def test_after_a_load_above_the_capacity_nothing_is_refused_within_a_second(rate: int, overhead_s: float) -> None:
    world = World(wait_s=1.0, standing_s=0.15)
    above = offer(world, (2, 4), (0.5, 0.5), rate=rate, overhead_s=overhead_s)
    assert above.refused > 0
    after, refused = offer(world, (0.5, 1), rate=rate, overhead_s=overhead_s)
    assert refused == 0
    assert max(took_s for _, took_s in after) < 0.1
