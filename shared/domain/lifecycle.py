"""The life cycle of an auction: it opens, pauses, resumes, gets a later end, closes or is cancelled.

Each function takes the state and the instant, and returns the new state or raises an error. The Lua scripts of the same
names do the same in Redis.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from shared.domain.auction import State, Status, Terms
from shared.domain.errors import EndStays, StateConflict

MOVED_MAX_US: Final = 30 * 24 * 3_600 * 1_000_000
"""By how much :func:`extend` moves the end of one item, in all: bidders are bound by what they have bid."""
HAS_NO_END: Final = "it has none"
END_IS_OPEN: Final = (
    "the item is paused, so its end is known when it is resumed; send by_s, which is added to the time left"
)
NOT_LATER: Final = "it can only become later"


def is_due_to_open(terms: Terms, state: State, now_us: int) -> bool:
    """Whether the start time of a scheduled item has come."""
    return state.status is Status.SCHEDULED and now_us >= terms.start_us


def is_due_to_close(state: State, now_us: int) -> bool:
    """Whether the end of an open item has come. A paused item never ends: its remaining time is kept."""
    return state.status is Status.OPEN and state.end_us is not None and now_us >= state.end_us


def advance(terms: Terms, state: State, now_us: int) -> State:
    """The state after all that time alone causes: opening, then closing; each is one sequenced event.

    After downtime both may be due at once. The state of an item that is not due stays as it is.
    """
    if is_due_to_open(terms, state, now_us):
        state = replace(state, status=Status.OPEN, seq=state.seq + 1)
    if is_due_to_close(state, now_us):
        sold = state.leader is not None and state.reserve_met
        state = replace(state, status=Status.SOLD if sold else Status.UNSOLD, seq=state.seq + 1)
    return state


def pause(terms: Terms, state: State, now_us: int) -> State:
    """Stop the bidding; the remaining time is kept.

    Raises:
        StateConflict: the item is not open, or its end has come.
    """
    opened = replace(state, status=Status.OPEN) if is_due_to_open(terms, state, now_us) else state
    if opened.status is not Status.OPEN or is_due_to_close(opened, now_us):
        raise StateConflict(terms.item_id, _named(opened, now_us), "pause")
    return replace(opened, status=Status.PAUSED, paused_us=now_us, seq=state.seq + 1)


def resume(terms: Terms, state: State, now_us: int) -> State:
    """Resume the bidding; the end and the hard end move by the length of the pause.

    Raises:
        StateConflict: the item is not paused.
    """
    if state.status is not Status.PAUSED or state.paused_us is None:
        raise StateConflict(terms.item_id, _named(state, now_us), "resume")
    shift = now_us - state.paused_us
    return replace(
        state,
        status=Status.OPEN,
        paused_us=None,
        end_us=None if state.end_us is None else state.end_us + shift,
        hard_end_us=None if state.hard_end_us is None else state.hard_end_us + shift,
        seq=state.seq + 1,
    )


def extend(terms: Terms, state: State, now_us: int, *, by_us: int | None = None, end_us: int | None = None) -> State:
    """Move the end later, by ``by_us`` or to the instant ``end_us``; the hard end moves by as much.

    The soft close's count stays: it counts late bids. What is added to a paused item is added to the time that is left;
    its end is known when it is resumed, so only ``by_us`` says what is meant.

    Raises:
        StateConflict: the item is closed or cancelled, or its end has come.
        EndStays: it has no end, or the end would not be later, or would move by more than :data:`MOVED_MAX_US` in all.
    """
    opened = replace(state, status=Status.OPEN) if is_due_to_open(terms, state, now_us) else state
    if opened.status.is_final or is_due_to_close(opened, now_us):
        raise StateConflict(terms.item_id, _named(opened, now_us), "extend")
    if opened.end_us is None:
        raise EndStays(terms.item_id, HAS_NO_END)
    if by_us is None:
        assert end_us is not None, "one of the two says how far"
        if opened.status is Status.PAUSED:
            raise EndStays(terms.item_id, END_IS_OPEN)
        by_us = end_us - opened.end_us
    if by_us <= 0:
        raise EndStays(terms.item_id, NOT_LATER)
    if opened.moved_us + by_us > MOVED_MAX_US:
        raise EndStays(terms.item_id, moved_too_far(opened.moved_us))
    return replace(
        opened,
        end_us=opened.end_us + by_us,
        hard_end_us=None if opened.hard_end_us is None else opened.hard_end_us + by_us,
        moved_us=opened.moved_us + by_us,
        seq=state.seq + 1,
    )


def moved_too_far(moved_us: int) -> str:
    """Why an end that has been moved so far is not moved as asked."""
    left_s = (MOVED_MAX_US - moved_us) // 1_000_000
    return f"in all it may become later by {MOVED_MAX_US // 86_400_000_000} days, of which {left_s} seconds are left"


def cancel(terms: Terms, state: State, now_us: int) -> State:
    """Withdraw the item, from any state before closed; an open item whose end has come counts as closed.

    Raises:
        StateConflict: the item is closed or cancelled already.
    """
    if state.status.is_final or is_due_to_close(state, now_us):
        raise StateConflict(terms.item_id, _named(state, now_us), "cancel")
    return replace(state, status=Status.CANCELLED, paused_us=None, seq=state.seq + 1)


def _named(state: State, now_us: int) -> str:
    return "closed" if is_due_to_close(state, now_us) else state.status.value
