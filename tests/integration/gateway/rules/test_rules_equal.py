"""The pure rules and ``place_bids.lua`` come to the same verdicts, events and states, on a real Redis."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace

import pytest
from hypothesis import given, settings

from shared.domain.auction import Status, Terms, opening_state
from shared.domain.bidding import Bid
from shared.domain.increments import Increment
from shared.domain.soft_close import SoftClose
from shared.messages import (
    AuctionCancelled,
    AuctionClosed,
    BidAccepted,
)
from tests.histories import (
    NOW_US,
    SECOND_US,
    KeyedBid,
    Step,
    histories,
    late_terms,
    resting_histories,
    terms,
)
from tests.integration.gateway.rules.rule_engine import ITEM, Engine
from tests.integration.gateway.rules.rule_model import Model, assert_equal, assert_events, next_transition, play
from tests.searching import examples


@settings(max_examples=examples(400))
@given(item_terms=terms(), steps=histories())
def test_the_script_decides_as_the_reference_does(engine: Engine, item_terms: Terms, steps: list[Step]) -> None:
    item_terms = replace(item_terms, item_id=ITEM)
    engine.reset(item_terms, NOW_US)
    model = Model(item_terms, opening_state(item_terms, NOW_US))
    now_us = NOW_US
    for step in steps:
        now_us += step.elapsed_us
        engine.set_clock(now_us)
        if step.operation is not None:
            assert engine.operate(step.operation) == model.operate(step.operation, now_us)
        expected = [model.place(keyed, now_us) for keyed in step.bids]
        assert engine.place(step.bids) == expected
    found = engine.item()
    assert found.state == model.state
    assert engine.deadline() == next_transition(model)
    assert_events(model.events, engine.events())


@settings(max_examples=examples(150))
@given(item_terms=terms(), steps=histories())
def test_what_every_history_keeps(engine: Engine, item_terms: Terms, steps: list[Step]) -> None:
    """Sequence numbers without a gap, prices that strictly rise, one event per bid id, nothing after `closed`."""
    engine.reset(replace(item_terms, item_id=ITEM), NOW_US)
    now_us = NOW_US
    for step in steps:
        now_us += step.elapsed_us
        engine.set_clock(now_us)
        if step.operation is not None:
            engine.operate(step.operation)
        engine.place(step.bids)
    events = engine.events()
    assert [event.seq for event in events] == list(range(1, len(events) + 1))
    placed = [event for event in events if isinstance(event, BidAccepted)]
    amounts = [event.amount for event in placed]
    assert all(low < high for low, high in itertools.pairwise(amounts))
    assert len({event.bid_id for event in placed}) == len(placed)
    closed = [event.seq for event in events if isinstance(event, AuctionClosed)]
    assert closed in ([], [len(events)])
    cancelled = [event.seq for event in events if isinstance(event, AuctionCancelled)]
    assert cancelled in ([], [len(events)])
    if placed:
        assert engine.item().state.price == amounts[-1]


@pytest.mark.parametrize("operation", ["pause", "cancel"])
def test_who_won_loses_nothing_to_an_operation_between_the_end_and_the_close(engine: Engine, operation: str) -> None:
    end_us = NOW_US + SECOND_US
    item_terms = Terms(ITEM, NOW_US, increment=Increment("flat", 1), end_us=end_us)
    engine.reset(item_terms, NOW_US)
    engine.place((KeyedBid(Bid("b", "ann", 10), None, False),))
    engine.set_clock(end_us)
    assert not engine.operate(operation)
    assert engine.operate("advance")
    state = engine.item().state
    assert (state.status, state.leader) == (Status.SOLD, "ann")


def test_a_resume_moves_the_hard_end_as_well(engine: Engine) -> None:
    """A bid after it is extended up to the hard end as it is now, not as it was agreed."""
    end_us, pause_us = NOW_US + 100 * SECOND_US, 500 * SECOND_US
    soft_close = SoftClose(60 * SECOND_US, 300 * SECOND_US, "from_end", 0, hard_end_us=end_us + 40 * SECOND_US)
    item_terms = Terms(ITEM, NOW_US, increment=Increment("flat", 1), end_us=end_us, soft_close=soft_close)
    engine.reset(item_terms, NOW_US)
    model = Model(item_terms, opening_state(item_terms, NOW_US))
    for number, (at_us, operation) in enumerate(
        [(50, "pause"), (50 + 500, "resume"), (50 + 500 + 40, None), (50 + 500 + 41, None)], start=1
    ):
        step = Step(0, operation, (KeyedBid(Bid(f"b-{number}", f"u{number % 2}", 10 * number), None, False),))
        play(engine, model, step, NOW_US + at_us * SECOND_US)
    state = engine.item().state
    assert state == model.state
    assert state.hard_end_us == end_us + 40 * SECOND_US + pause_us
    assert (state.end_us, state.extensions) == (state.hard_end_us, 1)


@dataclass
class Seen:
    """How often histories had rare cases."""

    resumes: int = 0
    bounded_after: int = 0


SEEN = Seen()


@settings(max_examples=examples(100))
@given(item_terms=late_terms(), steps=resting_histories())
def pauses_are_equal(engine: Engine, item_terms: Terms, steps: list[Step]) -> None:
    item_terms = replace(item_terms, item_id=ITEM)
    engine.reset(item_terms, NOW_US)
    model, now_us = Model(item_terms, opening_state(item_terms, NOW_US)), NOW_US
    agreed_us = model.state.hard_end_us
    for step in steps:
        now_us += step.elapsed_us
        before = model.state
        play(engine, model, step, now_us)
        SEEN.resumes += before.status is Status.PAUSED and model.state.status is Status.OPEN
        SEEN.bounded_after += agreed_us != model.state.hard_end_us == model.state.end_us != before.end_us
    assert_equal(engine, model)
    assert engine.deadline() == next_transition(model)


def test_pauses_and_a_hard_end(engine: Engine) -> None:
    """The histories have the case: items with a hard end are resumed, and bids run into it where it is then."""
    pauses_are_equal(engine)
    assert SEEN.resumes >= 100
    assert SEEN.bounded_after >= 20


def test_a_raised_maximum_has_a_place_of_its_own_in_the_log(engine: Engine) -> None:
    """Also where nothing else came with it. A void counts on from a place, so no two bids may have the same."""
    engine.reset(Terms(ITEM, NOW_US, increment=Increment("flat", 1)), NOW_US)
    bids = [Bid("first", "ann", None, 100), Bid("raised", "ann", None, 200), Bid("next", "bob", 50)]
    for bid in bids:
        engine.place((KeyedBid(bid, None, False),))
    assert [(entry.position, entry.bid.bid_id) for entry in engine.log()] == [(1, "first"), (2, "raised"), (3, "next")]


def test_a_raise_against_nobody_leaves_the_price_where_it_is(engine: Engine) -> None:
    """Also where the price is less than one increment: no runner-up is there for the maximum to answer."""
    item_terms = Terms(item_id=ITEM, start_us=NOW_US, increment=Increment("flat", 50))
    engine.reset(item_terms, NOW_US)
    model = Model(item_terms, opening_state(item_terms, NOW_US))
    bids = (Bid("of-ann", "ann", 5), Bid("raised", "ann", None, 200), Bid("of-bob", "bob", 60))
    play(engine, model, Step(0, None, tuple(KeyedBid(bid, None, False) for bid in bids[:2])), NOW_US)
    assert (engine.item().state.price, engine.item().state.leader_max) == (5, 200)
    play(engine, model, Step(0, None, (KeyedBid(bids[2], None, False),)), NOW_US)
    assert_equal(engine, model)
