"""The pure rules and the scripts strike bids alike, also where the caller has counted a part of the log."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.domain import bidding, voiding
from shared.domain.auction import Status, Terms, opening_state
from shared.domain.bidding import Bid
from shared.domain.increments import Increment
from shared.messages import (
    BidAccepted,
    BidVoided,
)
from tests.histories import (
    NOW_US,
    KeyedBid,
    Step,
    histories,
    terms,
)
from tests.integration.gateway.rules.rule_engine import ITEM, Engine, rows_of
from tests.integration.gateway.rules.rule_model import Model, assert_equal, next_transition, play
from tests.searching import examples


@settings(max_examples=examples(250))
@given(item_terms=terms(), steps=histories(), data=st.data())
def test_a_bid_is_struck_as_in_the_reference(
    engine: Engine, item_terms: Terms, steps: list[Step], data: st.DataObject
) -> None:
    """Many voids between the bids, also of raised maxima, of struck bids and of bids that were long ago."""
    item_terms = replace(item_terms, item_id=ITEM)
    engine.reset(item_terms, NOW_US)
    model = Model(item_terms, opening_state(item_terms, NOW_US))
    now_us = NOW_US
    for step in steps:
        now_us += step.elapsed_us
        play(engine, model, step, now_us)
        ids = [entry.bid.bid_id for entry in model.log]
        for bid_id in data.draw(st.lists(st.sampled_from([*ids, "never", *ids[-2:]]), max_size=3)):
            known = next(
                (e for e in model.log if e.bid.bid_id == bid_id and e.kind != "anew" and not e.is_struck), None
            )
            # As if the log had lost some entries: those and maybe more are counted by the gateway.
            counted = None
            if known is not None and data.draw(st.booleans()):
                least = model.log.index(known) + 1
                counted = data.draw(st.integers(least, len(model.log)))
                while counted < len(model.log) and model.log[counted].kind == "anew":
                    counted += 1
            assert engine.void(bid_id, count_up_to=counted) == model.void(bid_id, now_us)
            assert_equal(engine, model)
    assert_equal(engine, model)
    assert engine.deadline() == next_transition(model)
    assert_rows(engine)


def assert_rows(engine: Engine) -> None:
    """What the events tell of rows is what the log has, and the price is that of the highest that stands."""
    told = {bid_id: row.amount for bid_id, (row, fate) in rows_of(engine.events()).items() if fate is None}
    assert told == {row.bid_id: row.amount for entry in engine.log() for row in entry.rows()}
    state = engine.item().state
    if not state.status.is_final:
        assert state.price == max(told.values(), default=engine.item().terms.start_price)
    assert all(amount <= state.price for amount in told.values())


def test_a_void_goes_on_from_where_the_caller_has_counted(engine: Engine) -> None:
    """Bids in between do not keep it from coming through; another void does, and a log that lost its place."""
    engine.reset(Terms(item_id=ITEM, start_us=NOW_US, increment=Increment("flat", 1)), NOW_US)
    placed = [Bid(f"b-{n}", user, None, 100 * n) for n, user in enumerate(("ann", "bob", "cyd", "dee", "ann"), start=1)]
    engine.place(tuple(KeyedBid(bid, None, False) for bid in placed[:3]))
    count = engine.counted("b-2", 3)
    engine.place(tuple(KeyedBid(bid, None, False) for bid in placed[3:]))
    engine.forget(2)
    assert engine.void_with("b-2", count) == 0
    assert (engine.item().state.price, engine.item().state.leader_max) == (401, 500)
    assert engine.void_with("b-3", count) == 5, "there was another void"
    assert engine.void_with("b-3", [""]) == 6, "the log does not reach back to the first bid"
    stale = engine.counted("b-4", 1)
    engine.forget(2)
    assert engine.void_with("b-4", stale) == 5, "the log lost the place"


def test_what_was_counted_before_a_recovery_is_counted_again(engine: Engine) -> None:
    """Redis lost bob's bid, which had not reached the archive; cyd's is now where that was."""
    engine.reset(Terms(item_id=ITEM, start_us=NOW_US, increment=Increment("flat", 1)), NOW_US)
    engine.place(tuple(KeyedBid(Bid(f"of-{u}", u, n), None, False) for u, n in (("ann", 100), ("zed", 200))))
    kept = engine.everything()
    engine.place((KeyedBid(Bid("of-bob", "bob", None, 500), None, False),))
    count = engine.counted("of-zed", 3)
    engine.put_back(kept, epoch=2)
    engine.place((KeyedBid(Bid("of-cyd", "cyd", 300), None, False),))
    assert engine.void_with("of-zed", count) == 5, "it is another epoch"
    assert engine.void_with("of-zed", engine.counted("of-zed", 3)) == 0
    assert (engine.item().state.price, engine.item().state.leader) == (300, "cyd")


def test_what_was_counted_before_a_failover_is_counted_again(engine: Engine) -> None:
    """A replica that lacked bob's bid, which nobody was told of, took over in the same epoch."""
    engine.reset(Terms(item_id=ITEM, start_us=NOW_US, increment=Increment("flat", 1)), NOW_US)
    engine.place(tuple(KeyedBid(Bid(f"of-{u}", u, n), None, False) for u, n in (("ann", 100), ("zed", 200))))
    kept = engine.everything()
    engine.place((KeyedBid(Bid("of-bob", "bob", None, 500), None, False),))
    count = engine.counted("of-zed", 3)
    engine.put_back(kept, epoch=1)
    assert engine.void_with("of-zed", count) == 5, "the log does not go as far"
    engine.place((KeyedBid(Bid("of-cyd", "cyd", 300), None, False),))
    assert engine.void_with("of-zed", count) == 5, "what was counted is another bid"
    assert engine.void_with("of-zed", engine.counted("of-zed", 3)) == 0
    assert (engine.item().state.price, engine.item().state.leader) == (300, "cyd")


def test_what_the_caller_has_counted_is_not_counted_once_more(engine: Engine) -> None:
    """Also where the log still has it."""
    engine.reset(Terms(item_id=ITEM, start_us=NOW_US, increment=Increment("flat", 1)), NOW_US)
    bids = (Bid("of-ann", "ann", None, 300), Bid("of-bob", "bob", 50), Bid("of-cyd", "cyd", 60))
    engine.place(tuple(KeyedBid(bid, None, False) for bid in bids))
    assert engine.void_with("of-ann", engine.counted("of-ann", 3)) == 0
    state = engine.item().state
    assert (state.price, state.leader, state.bid_count, state.runner_up) == (60, "cyd", 2, 50)


def test_a_row_between_the_counted_price_and_the_new_one_is_not_passed_over(engine: Engine) -> None:
    """The caller counts up to a price below cyd's row of 70. Dee's bid, which came in between, lifts it above."""
    bids = (Bid("of-ann", "ann", None, 50), Bid("of-zed", "zed", None, 90), Bid("of-cyd", "cyd", None, 70))
    terms = Terms(item_id=ITEM, start_us=NOW_US, increment=Increment("flat", 1))
    log, state = [], opening_state(terms, NOW_US)
    for position, bid in enumerate((*bids, Bid("of-dee", "dee", None, 75)), start=1):
        outcome = bidding.place_bid(terms, state, bid, NOW_US)
        log.append(voiding.logged(position, bid, outcome))
        state = outcome.state
    wanted = voiding.void(terms, state, log, "of-zed", NOW_US)
    assert (wanted.voided.current_bid, wanted.state.price) == (70, 71)

    engine.reset(terms, NOW_US)
    engine.place(tuple(KeyedBid(bid, None, False) for bid in bids))
    count = engine.counted("of-zed", 3)
    engine.place((KeyedBid(Bid("of-dee", "dee", None, 75), None, False),))
    again = engine.counted("of-zed", 4)
    engine.forget(3)
    assert engine.void_with("of-zed", count) == 5, "count again"
    assert engine.void_with("of-zed", again) == 0
    *_, voided, anew = engine.events()
    assert isinstance(voided, BidVoided)
    assert (voided.current_bid, anew.current_bid) == (70, 71)


@pytest.mark.parametrize("counted", [None, 2])
def test_a_maximum_that_is_left_alone_bids_anew_at_the_start_price(engine: Engine, counted: int | None) -> None:
    """Its own row showed more. Without a new one the price would be shown by no bid."""
    item_terms = Terms(item_id=ITEM, start_us=NOW_US, start_price=10, increment=Increment("flat", 1))
    engine.reset(item_terms, NOW_US)
    model = Model(item_terms, opening_state(item_terms, NOW_US))
    bids = (Bid("of-ann", "ann", 100), Bid("of-bob", "bob", None, 500))
    play(engine, model, Step(0, None, tuple(KeyedBid(bid, None, False) for bid in bids)), NOW_US)
    assert engine.void("of-ann", count_up_to=counted)
    assert model.void("of-ann", NOW_US)
    assert_equal(engine, model)
    anew = engine.events()[-1]
    assert isinstance(anew, BidAccepted)
    assert (anew.bid_id, anew.user_id, anew.amount) == ("of-ann/anew", "bob", 10)


def test_a_void_between_the_end_and_the_close_promotes_nobody(engine: Engine) -> None:
    """The item is open by its status then, and would be sold to whoever is next."""
    engine.reset(Terms(item_id=ITEM, start_us=NOW_US, end_us=NOW_US + 10), NOW_US)
    for user, amount in (("ann", 100), ("bob", 200)):
        engine.place((KeyedBid(Bid(f"of-{user}", user, amount), None, False),))
    engine.set_clock(NOW_US + 10)
    assert not engine.void("of-bob")
    assert engine.item().state.leader == "bob"
    assert engine.operate("advance")
    assert engine.void("of-bob")
    item = engine.item()
    assert (item.state.status, item.state.leader) == (Status.UNSOLD, None)
