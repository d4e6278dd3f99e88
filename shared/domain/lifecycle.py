"""The life cycle of an auction: it opens, pauses, resumes, closes or is cancelled.

Each function takes the state and the instant, and returns the new state or raises an error. The Lua scripts of the same
names do the same in Redis.
"""

from __future__ import annotations

from dataclasses import replace

from shared.domain.auction import State, Status, Terms
from shared.domain.errors import StateConflict


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
