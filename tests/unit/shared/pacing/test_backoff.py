"""Pauses grow, are bounded, and can be cut short."""

from __future__ import annotations

import asyncio

from shared.pacing.backoff import Backoff, set_within


def test_pauses_double_within_their_jitter_up_to_the_bound() -> None:
    backoff = Backoff(first_s=1.0, most_s=5.0)
    for whole_s in (1.0, 2.0, 4.0, 5.0, 5.0):
        assert whole_s / 2 <= backoff.failed() <= whole_s


def test_many_failures_do_not_overflow() -> None:
    backoff = Backoff(first_s=0.1, most_s=5.0)
    assert all(backoff.failed() <= 5.0 for _ in range(5_000))


def test_success_begins_anew() -> None:
    backoff = Backoff(first_s=1.0, most_s=60.0)
    for _ in range(10):
        backoff.failed()
    backoff.succeeded()
    assert backoff.failed() <= 1.0


async def test_a_pause_ends_when_the_event_is_set() -> None:
    event = asyncio.Event()
    pause = asyncio.create_task(set_within(event, 3_600))
    event.set()
    assert await pause
    assert await set_within(event, 0)


async def test_a_pause_ends_by_itself() -> None:
    assert not await set_within(asyncio.Event(), 0.001)
