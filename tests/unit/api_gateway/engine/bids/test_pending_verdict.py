"""Verdicts that bids wait for: who waits is told once, in order, whatever becomes of the others."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from api_gateway.engine.bids.pending_verdict import PendingVerdict, tell_all
from shared.domain.errors import OutcomeUnknown


async def test_what_is_settled_is_told_later_and_once() -> None:
    verdict = PendingVerdict()
    told: list[Any] = []
    verdict.add_done_callback(lambda one: told.append(("a", one.result())))
    verdict.add_done_callback(lambda one: told.append(("b", one.result())))
    verdict.settle(b"A")
    assert (verdict.done(), told) == (True, [])
    assert await verdict == b"A", "who awaits it need not wait for that"
    tell_all([verdict])
    tell_all([verdict])
    verdict.add_done_callback(lambda one: told.append(("late", one.result())))
    assert told == [("a", b"A"), ("b", b"A"), ("late", b"A")]


async def test_an_error_is_told_at_once_and_raised_where_it_is_awaited() -> None:
    verdict = PendingVerdict()
    told: list[Any] = []
    verdict.add_done_callback(lambda one: told.append(one.exception()))
    waiting = asyncio.create_task(_awaited(verdict))
    await asyncio.sleep(0)
    error = OutcomeUnknown()
    verdict.set_exception(error)
    assert told == [error]
    with pytest.raises(OutcomeUnknown):
        await waiting
    with pytest.raises(OutcomeUnknown):
        await verdict


def test_an_error_that_many_bids_share_does_not_gather_what_those_hold_to_whom_it_was_told() -> None:
    error, lengths = OutcomeUnknown(), []
    for _ in range(3):
        verdict = PendingVerdict()
        verdict.set_exception(error)
        with pytest.raises(OutcomeUnknown) as raised:
            verdict.result()
        lengths.append(len(raised.traceback))
    assert lengths == [lengths[0]] * 3


async def test_who_is_cancelled_takes_the_verdict_from_nobody() -> None:
    verdict = PendingVerdict()
    gone, stays = asyncio.create_task(_awaited(verdict)), asyncio.create_task(_awaited(verdict))
    await asyncio.sleep(0)
    gone.cancel()
    await asyncio.wait([gone])
    verdict.set_result(b"R")
    assert await stays == b"R"


async def test_a_fault_of_one_keeps_the_verdict_from_no_other(caplog: pytest.LogCaptureFixture) -> None:
    verdicts = [PendingVerdict(), PendingVerdict()]
    told: list[Any] = []

    def fail(_: PendingVerdict) -> None:
        raise ZeroDivisionError

    verdicts[0].add_done_callback(fail)
    for verdict in verdicts:
        verdict.add_done_callback(lambda one: told.append(one.result()))
        verdict.settle(b"A")
    with caplog.at_level(logging.ERROR):
        tell_all(verdicts)
    assert told == [b"A", b"A"]
    assert "could not be told" in caplog.text


def test_there_is_one_verdict_and_none_before() -> None:
    verdict = PendingVerdict()
    with pytest.raises(asyncio.InvalidStateError):
        verdict.result()
    verdict.set_result(b"A")
    with pytest.raises(AssertionError):
        verdict.set_result(b"R")
    with pytest.raises(AssertionError):
        verdict.set_exception(OutcomeUnknown())


async def _awaited(verdict: PendingVerdict) -> bytes:
    return await verdict
