"""When clients are told that their bids are shed, on clocks of the test's own."""

from __future__ import annotations

import asyncio
import errno
import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest

from api_gateway.engine.bids import refusals as module
from api_gateway.engine.bids.refusals import AT_ONCE_BUSY, AT_ONCE_IDLE, Refusals, Tell, WantedCore
from tests.waiting import eventually


def tells(told: list[int], number: int) -> Tell:
    """A client that is still there."""

    def tell() -> bool:
        told.append(number)
        return True

    return tell


class World:
    """Refusals, and a core that is busy for a part of the time."""

    def __init__(self) -> None:
        self.now_s = self.cpu_s = 100.0
        self.refusals = Refusals(clock=lambda: self.now_s, core_clock=lambda: self.cpu_s)
        self.told: list[int] = []
        self._next = 0

    def shed(self, clients: int) -> None:
        for _ in range(clients):
            self.refusals.add(tells(self.told, self._next))
            self._next += 1

    def flush(self, bids: int, *, busy: float, took_s: float = 0.1) -> int:
        """Returns how many were told after it."""
        before = len(self.told)
        self.now_s += took_s
        self.cpu_s += took_s * busy
        self.refusals.flushed(bids)
        return len(self.told) - before


async def test_while_the_core_is_busy_three_that_are_shed_are_told_for_two_that_are_decided() -> None:
    """However many clients come: else telling them would leave no time for the flushes."""
    world = World()
    world.shed(5_000)
    assert world.told == list(range(AT_ONCE_BUSY)), "the first ones at once"
    assert world.flush(1_000, busy=1.0) == 1_500
    world.shed(10)
    assert world.flush(1_000, busy=0.9) == 1_500, "those who come meanwhile wait behind the others"
    assert world.flush(1, busy=1.0) == AT_ONCE_BUSY, "and some after each flush, however few bids it had"
    assert world.told == list(range(len(world.told))), "in their order"
    world.refusals.close()


async def test_while_it_has_time_to_spare_many_are_told() -> None:
    world = World()
    world.shed(20_000)
    assert world.flush(10, busy=0.8) == AT_ONCE_IDLE
    assert world.flush(10, busy=1.0) == AT_ONCE_BUSY, "its core is busy again"
    assert world.flush(10, busy=0.0, took_s=0.001) == AT_ONCE_BUSY, "a moment says nothing"
    assert world.flush(10, busy=0.5) == AT_ONCE_IDLE
    world.refusals.close()
    assert world.told == list(range(20_000))


async def test_what_counts_is_what_the_core_did_last() -> None:
    """Not on average: a gateway that was idle for an hour has no more time than others once it is busy."""
    world = World()
    world.shed(20_000)
    for _ in range(2):
        assert world.flush(10, busy=0.0, took_s=3_600) == AT_ONCE_IDLE
        assert world.flush(10, busy=1.0) == AT_ONCE_BUSY
    world.refusals.close()


async def test_so_many_are_told_in_the_time_of_a_flush_then() -> None:
    world = World()
    world.shed(1)
    world.flush(1, busy=0.1)
    world.shed(AT_ONCE_IDLE)
    assert len(world.told) == AT_ONCE_IDLE + 1
    world.shed(1)
    assert (len(world.told), len(world.refusals)) == (AT_ONCE_IDLE + 1, 1)
    world.refusals.close()


async def test_who_comes_while_others_are_told_is_told_after_those_who_wait() -> None:
    world = World()
    world.shed(AT_ONCE_BUSY)

    def comes_again() -> bool:
        world.told.append(-1)
        world.refusals.add(tells(world.told, -2))
        return True

    world.refusals.add(comes_again)
    world.shed(2)
    world.flush(1, busy=1.0)
    assert world.told[AT_ONCE_BUSY:] == [-1, AT_ONCE_BUSY, AT_ONCE_BUSY + 1]
    world.flush(1, busy=1.0)
    assert world.told[-1] == -2
    world.refusals.close()


def test_a_thread_that_waits_for_a_core_has_no_time_to_spare() -> None:
    """A container with a quarter of a core never uses more of it, however much it has to do."""
    if not Path("/proc/thread-self/schedstat").exists():
        pytest.skip("this system does not say how long a thread waited")
    cores = os.sched_getaffinity(0)
    core = {min(cores)}
    wanted_core_s = WantedCore()
    rivals = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(3)]
    try:
        for rival in rivals:
            os.sched_setaffinity(rival.pid, core)
        os.sched_setaffinity(0, core)
        began_s, ran_s, wanted_s = time.monotonic(), time.thread_time(), wanted_core_s()
        while time.monotonic() - began_s < 0.5:
            pass
        took_s = time.monotonic() - began_s
        assert time.thread_time() - ran_s < 0.7 * took_s, "it shared its core"
        assert 0.9 * took_s < wanted_core_s() - wanted_s < 1.1 * took_s
    finally:
        os.sched_setaffinity(0, cores)
        for rival in rivals:
            rival.kill()
            rival.wait()


def test_a_thread_that_waits_for_something_else_has_time_to_spare() -> None:
    wanted_core_s = WantedCore()
    began_s, wanted_s = time.monotonic(), wanted_core_s()
    time.sleep(0.5)
    assert wanted_core_s() - wanted_s < 0.5 * (time.monotonic() - began_s)


def test_a_moment_in_which_no_file_can_be_opened_is_no_sign_of_an_idle_core(monkeypatch: pytest.MonkeyPatch) -> None:
    """With too many open files the thread would have waited for no core since it began: less than a moment ago."""
    waited_s = 500.0

    def read(path: Path) -> bytes:
        if waited_s < 0:
            raise OSError(errno.EMFILE, "Too many open files")
        return b"%d %d 7" % (0, waited_s * 1e9)

    monkeypatch.setattr(Path, "read_bytes", read)
    wanted_core_s = WantedCore()
    before_s = wanted_core_s()
    assert before_s >= 500
    waited_s = -1
    assert wanted_core_s() >= before_s
    waited_s = 501
    assert wanted_core_s() >= before_s + 1


def test_where_the_system_does_not_say_how_long_a_thread_waited_it_is_what_it_ran(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def read(path: Path) -> bytes:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_bytes", read)
    assert WantedCore()() <= time.thread_time()


async def test_they_are_told_when_no_flush_ends() -> None:
    world = World()
    world.shed(4 * AT_ONCE_BUSY)
    assert len(world.told) == AT_ONCE_BUSY
    await eventually(lambda: len(world.told) == 4 * AT_ONCE_BUSY)
    assert world.told == list(range(4 * AT_ONCE_BUSY))


async def test_however_many_wait_there_is_one_timer(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else each of them would make some be told, and all together all at once."""
    timers: list[SimpleNamespace] = []

    def call_later(_: float, tell: Callable[[int], None], most: int) -> SimpleNamespace:
        timers.append(SimpleNamespace(tell=partial(tell, most), cancel=lambda: None))
        return timers[-1]

    monkeypatch.setattr(asyncio, "get_running_loop", lambda: SimpleNamespace(call_later=call_later))
    world = World()
    world.shed(4 * AT_ONCE_BUSY)
    assert len(timers) == 1
    timers.pop().tell()
    assert (len(world.told), len(timers)) == (2 * AT_ONCE_BUSY, 1)
    world.refusals.close()


async def test_after_a_flush_they_wait_for_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was to end the wait for the last one is over."""
    monkeypatch.setattr(module, "AGAIN_S", 0.01)
    world = World()
    world.shed(AT_ONCE_BUSY + 1)
    world.flush(1, busy=1.0)
    world.shed(AT_ONCE_BUSY - 1)
    await asyncio.sleep(0.05)
    world.shed(1)
    assert (len(world.told), len(world.refusals)) == (2 * AT_ONCE_BUSY, 1)
    world.refusals.close()


async def test_while_the_gateway_ends_everybody_is_told_at_once() -> None:
    world = World()
    world.shed(AT_ONCE_BUSY + 1)
    world.refusals.close()
    world.shed(5_000)
    assert world.told == list(range(AT_ONCE_BUSY + 5_001))


async def test_who_has_gone_takes_nobodys_place() -> None:
    """Clients that hang up and come again would else make the others wait, for as long as they like."""
    world = World()
    world.shed(AT_ONCE_BUSY)
    for _ in range(5_000):
        world.refusals.add(lambda: False)
    world.shed(1)
    assert len(world.told) == AT_ONCE_BUSY
    assert world.flush(1, busy=1.0) == 1
    assert len(world.refusals) == 0
    world.shed(AT_ONCE_BUSY - 1)
    assert len(world.told) == 2 * AT_ONCE_BUSY, "nor a place among the next ones"


async def test_one_that_cannot_be_told_keeps_no_other_from_it(caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> bool:
        raise RuntimeError("a defect")

    world = World()
    world.shed(AT_ONCE_BUSY)
    world.refusals.add(fail)
    world.shed(1)
    assert world.flush(1, busy=1.0) == 1
    assert "a refusal could not be told" in caplog.text


async def test_how_many_wait_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where clients hang up while they wait, so that connections bound nothing."""
    monkeypatch.setattr(module, "WAITING_MAX", 10)
    world = World()
    world.shed(AT_ONCE_BUSY + 44)
    assert world.told == [*range(AT_ONCE_BUSY), *range(AT_ONCE_BUSY + 10, AT_ONCE_BUSY + 44)], "all but ten, who wait"
    assert len(world.refusals) == 10
    world.refusals.close()
    assert len(world.told) == AT_ONCE_BUSY + 44
