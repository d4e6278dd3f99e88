"""Starts, ends and what operators do, as the reference has it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from shared.domain.auction import State, Status, Terms
from shared.domain.errors import EndStays, StateConflict
from shared.domain.lifecycle import MOVED_MAX_US, advance, cancel, extend, pause, resume

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


def test_an_end_that_is_moved_takes_the_hard_end_along_and_leaves_the_count_of_late_bids() -> None:
    before = replace(OPEN, extensions=2)
    for after in (extend(TERMS, before, 150, by_us=40), extend(TERMS, before, 150, end_us=240)):
        assert (after.end_us, after.hard_end_us, after.extensions, after.moved_us, after.seq) == (240, 300, 2, 40, 4)
    assert extend(TERMS, after, 160, by_us=5).moved_us == 45
    early = extend(TERMS, SCHEDULED, 50, by_us=40)
    assert (early.status, early.end_us) == (Status.SCHEDULED, 240)
    assert extend(TERMS, SCHEDULED, 100, by_us=40).status is Status.OPEN


def test_what_is_added_to_a_paused_item_is_there_after_the_pause() -> None:
    longer = extend(TERMS, pause(TERMS, OPEN, 150), 900, by_us=40)
    assert (longer.status, longer.end_us) == (Status.PAUSED, 240)
    again = resume(TERMS, longer, 1_000)
    assert (again.end_us, again.hard_end_us) == (1_000 + 50 + 40, 260 + 850 + 40)
    with pytest.raises(EndStays, match="by_s"):
        extend(TERMS, longer, 900, end_us=5_000)


def test_an_end_is_never_earlier_nor_for_ever_and_where_there_is_none_it_is_not_moved() -> None:
    for asked in ({"end_us": 200}, {"end_us": 199}, {"by_us": 0}, {"by_us": -5}):
        with pytest.raises(EndStays, match="later"):
            extend(TERMS, OPEN, 150, **asked)
    with pytest.raises(EndStays, match="none"):
        extend(TERMS, replace(OPEN, end_us=None), 150, by_us=40)
    most = extend(TERMS, OPEN, 150, by_us=MOVED_MAX_US - 3_000_000)
    with pytest.raises(EndStays, match="30 days, of which 3 seconds"):
        extend(TERMS, most, 150, by_us=3_000_001)
    assert extend(TERMS, most, 150, by_us=3_000_000).moved_us == MOVED_MAX_US


def extend_a_little(terms: Terms, state: State, now_us: int) -> State:
    return extend(terms, state, now_us, by_us=1)


@pytest.mark.parametrize("operation", [pause, resume, cancel, extend_a_little])
def test_between_its_end_and_its_close_an_item_is_closed(operation: object) -> None:
    with pytest.raises(StateConflict, match="closed"):
        operation(TERMS, OPEN, 200)  # type: ignore[operator]
    for status in (Status.SOLD, Status.UNSOLD, Status.CANCELLED):
        with pytest.raises(StateConflict):
            operation(TERMS, replace(OPEN, status=status), 150)  # type: ignore[operator]
