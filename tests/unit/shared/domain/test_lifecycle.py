"""Starts, ends and what operators do, as the reference has it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from shared.domain.auction import State, Status, Terms
from shared.domain.errors import StateConflict
from shared.domain.lifecycle import advance, cancel, pause, resume

TERMS = Terms("lot", 100, end_us=200)
OPEN = State(end_us=200, hard_end_us=260, leader="ann", price=5, seq=3)
SCHEDULED = replace(OPEN, status=Status.SCHEDULED, leader=None, seq=0)


@pytest.mark.parametrize(
    ("state", "now_us", "status", "seq"),
    [
        (SCHEDULED, 99, Status.SCHEDULED, 0),
        (SCHEDULED, 100, Status.OPEN, 1),
        (SCHEDULED, 200, Status.UNSOLD, 2),  # after downtime both are due
        (OPEN, 199, Status.OPEN, 3),
        (OPEN, 200, Status.SOLD, 4),
        (replace(OPEN, reserve_met=False), 200, Status.UNSOLD, 4),
        (replace(OPEN, status=Status.PAUSED), 900, Status.PAUSED, 3),
    ],
)
def test_what_time_alone_causes(state: State, now_us: int, status: Status, seq: int) -> None:
    after = advance(TERMS, state, now_us)
    assert (after.status, after.seq) == (status, seq)


def test_a_pause_keeps_what_is_left_of_both_ends() -> None:
    paused = pause(TERMS, OPEN, 150)
    assert (paused.status, paused.paused_us, paused.end_us, paused.seq) == (Status.PAUSED, 150, 200, 4)
    again = resume(TERMS, paused, 170)
    assert (again.status, again.paused_us, again.end_us, again.hard_end_us) == (Status.OPEN, None, 220, 280)
    endless = resume(TERMS, replace(paused, end_us=None, hard_end_us=None), 170)
    assert (endless.end_us, endless.hard_end_us) == (None, None)


def test_an_item_whose_start_has_come_can_be_paused_whether_it_was_opened_or_not() -> None:
    assert pause(TERMS, SCHEDULED, 100).status is Status.PAUSED
    with pytest.raises(StateConflict):
        pause(TERMS, SCHEDULED, 99)


def test_a_paused_item_that_is_cancelled_is_no_longer_paused() -> None:
    cancelled = cancel(TERMS, pause(TERMS, OPEN, 150), 160)
    assert (cancelled.status, cancelled.paused_us, cancelled.seq) == (Status.CANCELLED, None, 5)


@pytest.mark.parametrize("operation", [pause, resume, cancel])
def test_between_its_end_and_its_close_an_item_is_closed(operation: object) -> None:
    with pytest.raises(StateConflict, match="closed"):
        operation(TERMS, OPEN, 200)  # type: ignore[operator]
    for status in (Status.SOLD, Status.UNSOLD, Status.CANCELLED):
        with pytest.raises(StateConflict):
            operation(TERMS, replace(OPEN, status=status), 150)  # type: ignore[operator]
