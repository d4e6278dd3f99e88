"""Parts of the peers that need no network: breaker, budget, and what a node owes a caller."""

from __future__ import annotations

import asyncio

from shared.read_cache.peers import cache_pb2 as pb
from shared.read_cache.peers.breaker import Breaker
from shared.read_cache.peers.budget import RetryBudget
from shared.read_cache.peers.line import Line, Ring
from shared.read_cache.peers.wire import ANSWER_BYTES, KEYS_PER_ASK_MAX
from shared.read_cache.remote import Heard
from tests.waiting import eventually


def test_a_peer_that_failed_is_left_alone_and_then_tried_by_one() -> None:
    breaker = Breaker(first_s=1.0, most_s=8.0)
    assert not breaker.is_open(0.0)
    breaker.failed(0.0)
    assert breaker.is_open(0.4)
    assert not breaker.is_open(1.1)
    assert breaker.is_open(1.2)
    assert breaker.is_open(2.0)
    breaker.succeeded()
    assert not breaker.is_open(2.0)


def test_many_failures_of_one_moment_are_one_failure() -> None:
    breaker = Breaker(first_s=1.0, most_s=60.0)
    for _ in range(1_000):
        breaker.failed(10.0)
    assert not breaker.is_open(11.1)


def test_second_attempts_are_a_share_of_the_first() -> None:
    budget = RetryBudget(share=0.2, most=3)
    assert [budget.take() for _ in range(4)] == [True] * 3 + [False]
    for _ in range(6):
        budget.attempted()
    assert [budget.take() for _ in range(2)] == [True, False]
    for _ in range(1_000):
        budget.attempted()
    assert sum(budget.take() for _ in range(1_000)) == 3


class Owed:
    def __init__(self) -> None:
        self.ring: Ring | None = (3, 77)
        self.line = Line(lambda: self.ring)
        self.sent: list[pb.Answer] = []
        self.may_send = asyncio.Event()
        self.may_send.set()

    async def send(self, answer: pb.Answer) -> None:
        await self.may_send.wait()
        self.sent.append(answer)


async def test_answers_of_one_moment_go_in_one_message() -> None:
    owed = Owed()
    writing = asyncio.create_task(owed.line.write(owed.send))
    for number in range(500):
        owed.line.add(number, pb.FOUND, b"value", 1.5)
    await owed.line.settled()
    (answer,) = owed.sent
    assert list(answer.numbers) == list(range(500))
    assert set(answer.fresh_ms) == {1_500}
    assert (answer.ring.epoch, answer.ring.fingerprint) == (3, 77)
    writing.cancel()


async def test_messages_are_bounded_by_keys_and_bytes() -> None:
    owed = Owed()
    writing = asyncio.create_task(owed.line.write(owed.send))
    for number in range(2 * KEYS_PER_ASK_MAX + 5):
        owed.line.add(number, pb.ABSENT)
    for number in range(5):
        owed.line.add(number, pb.FOUND, bytes(ANSWER_BYTES - 1))
    await owed.line.settled()
    assert [len(answer.numbers) for answer in owed.sent] == [KEYS_PER_ASK_MAX, KEYS_PER_ASK_MAX, 7, 2, 1]
    writing.cancel()


async def test_nothing_is_told_under_a_ring_that_has_changed_before_it_is_sent() -> None:
    for ring in ((4, 78), None):
        owed = Owed()
        owed.line.add(1, pb.FOUND, b"value", 10)
        owed.line.add(2, pb.FOUND, b"value", 10, ringless=True)
        owed.ring = ring
        answer = owed.line.take()
        assert list(answer.states) == [pb.OTHER_RING, pb.FOUND]
        assert list(answer.values) == [b"", b"value"]


async def test_with_values_goes_what_was_heard_before_the_first_of_them_was_looked_up() -> None:
    heard = [Heard(5, 1)]
    line = Line(lambda: (3, 77), lambda: heard[0])
    line.add(1, pb.FOUND, b"value", 10)
    heard[0] = Heard(6, 1)
    line.add(2, pb.FOUND, b"value", 10)
    answer = line.take()
    assert (answer.heard.changes, answer.heard.rebuilds) == (5, 1)
    line.add(3, pb.FOUND, b"value", 10)
    assert line.take().heard.changes == 6


async def test_signs_of_life_while_something_is_loaded_and_only_then() -> None:
    owed = Owed()
    owed.line.timeout_s = 0.03
    writing = asyncio.create_task(owed.line.write(owed.send))
    await asyncio.sleep(0.1)
    assert owed.sent == []
    owed.line.began()
    await eventually(lambda: len(owed.sent) >= 3)
    assert {len(answer.numbers) for answer in owed.sent} == {0}
    owed.line.ended()
    await asyncio.sleep(0.05)
    count = len(owed.sent)
    await asyncio.sleep(0.05)
    assert len(owed.sent) == count
    writing.cancel()


async def test_a_caller_who_takes_no_answers_is_not_listened_to() -> None:
    owed = Owed()
    owed.may_send.clear()
    writing = asyncio.create_task(owed.line.write(owed.send))
    for number in range(20):
        owed.line.add(number, pb.FOUND, bytes(1024**2))
    room = asyncio.create_task(owed.line.room())
    await asyncio.sleep(0.01)
    assert not room.done()
    owed.may_send.set()
    await asyncio.wait_for(room, 30)
    writing.cancel()
