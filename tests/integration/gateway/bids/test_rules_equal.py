"""The pure rules and ``place_bids.lua`` come to the same verdicts, events and states, on a real Redis."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis import Redis

from shared.domain import bidding, lifecycle, voiding
from shared.domain.auction import State, Status, Terms, minimum_bid, opening_state
from shared.domain.bidding import Bid, BidPlaced, Closed, Extended
from shared.domain.errors import BidNotFound, BidStruck, StateConflict
from shared.domain.increments import Increment
from shared.domain.rulings import NO_RULINGS, PASSING, Rulings
from shared.domain.soft_close import SoftClose
from shared.messages import (
    AuctionCancelled,
    AuctionClosed,
    AuctionExtended,
    AuctionPaused,
    BidAccepted,
    BidVoided,
    EndMoved,
    Event,
)
from shared.redis_layout.verdicts import KEY_REUSED, AcceptedBid, RefusedBid, VerdictLine
from tests.histories import (
    NOW_US,
    SECOND_US,
    KeyedBid,
    Step,
    end_asked,
    histories,
    late_terms,
    resting_histories,
    terms,
)
from tests.integration.gateway.bids.rule_engine import ITEM, Engine, rows_of
from tests.searching import examples

OPERATIONS = {
    "advance": lifecycle.advance,
    "pause": lifecycle.pause,
    "resume": lifecycle.resume,
    "cancel": lifecycle.cancel,
}


@dataclass(frozen=True)
class Moved:
    """A sequenced event that is no bid."""

    seq: int
    type: str
    status: Status
    end_us: int | None = None


@dataclass
class Model:
    """The reference: the pure rules, the verdicts by bidder and key, and who sent a bid id."""

    terms: Terms
    state: State
    stored: dict[tuple[str, str], tuple[Bid, VerdictLine]] = field(default_factory=dict)
    owners: dict[str, str] = field(default_factory=dict)
    events: list[bidding.DomainEvent | Moved | voiding.Voided] = field(default_factory=list)
    log: tuple[voiding.LogEntry, ...] = ()

    def rulings(self, user_id: str) -> Rulings:
        """What was ruled on a bidder."""
        return NO_RULINGS

    def void(self, bid_id: str, now_us: int) -> bool:
        """Strike a bid; whether the state allowed it."""
        try:
            after = voiding.void(self.terms, self.state, self.log, bid_id, now_us)
        except (StateConflict, BidNotFound, BidStruck):
            return False
        self.events.append(after.voided)
        if after.anew is not None:
            self.events.append(after.anew)
        self.state, self.log = after.state, after.log
        return True

    def operate(self, name: str, now_us: int) -> bool:
        """Run an operation; whether the state allowed it."""
        before = self.state
        try:
            if name.startswith("extend"):
                end_us, by_us = end_asked(name)
                after = lifecycle.extend(self.terms, before, now_us, end_us=end_us, by_us=by_us)
            else:
                after = OPERATIONS[name](self.terms, before, now_us)
        except StateConflict:
            return False
        if before.status is Status.SCHEDULED and name == "advance" and after.seq > before.seq:
            self.events.append(Moved(before.seq + 1, "opened", Status.OPEN))
        if after.status in (Status.SOLD, Status.UNSOLD) and after.seq > before.seq:
            self.events.append(Moved(after.seq, "closed", after.status))
        if name.startswith("extend"):
            self.events.append(Moved(after.seq, "end_moved", after.status, after.end_us))
        elif name != "advance":
            self.events.append(Moved(after.seq, f"{name}{'led' if name == 'cancel' else 'd'}", after.status))
        self.state = after
        return True

    def place(self, keyed: KeyedBid, now_us: int) -> VerdictLine:
        bid = keyed.bid
        if keyed.key is not None:
            known = self.stored.get((bid.user_id, keyed.key))
            if known is not None:
                first, verdict = known
                same = (first.amount, first.maximum) == (bid.amount, bid.maximum)
                return verdict if same else KEY_REUSED
            if keyed.key_is_bid_id and self.owners.get(keyed.key, bid.user_id) != bid.user_id:
                return KEY_REUSED
        by_status = bidding.refusal_by_status(self.terms, self.state, now_us)
        outcome = bidding.place_bid(self.terms, self.state, bid, now_us, self.rulings(bid.user_id))
        # The script opens a scheduled item with the first bid that finds it started, even if it refuses the bid; that
        # is no event, and the state is only written with one.
        self.state = outcome.state
        self.events.extend(outcome.events)
        if isinstance(outcome.verdict, bidding.Accepted):
            position = sum(entry.kind != "anew" for entry in self.log) + 1
            self.log += (voiding.logged(position, bid, outcome),)
        verdict = self._verdict(bid, outcome, now_us)
        is_passing = by_status is not None or (isinstance(verdict, RefusedBid) and verdict.code in PASSING)
        if keyed.key is not None and not is_passing:
            self.stored[(bid.user_id, keyed.key)] = (bid, verdict)
            if keyed.key_is_bid_id:
                self.owners.setdefault(keyed.key, bid.user_id)
        return verdict

    def _verdict(self, bid: Bid, outcome: bidding.Outcome, now_us: int) -> VerdictLine:
        state, given_verdict = outcome.state, outcome.verdict
        minimum = minimum_bid(self.terms, state)
        if isinstance(given_verdict, bidding.Refused):
            return RefusedBid(given_verdict.code, state.price, state.leader == bid.user_id, minimum, state.reserve_met)
        return AcceptedBid(
            bid_id=bid.bid_id,
            seq=given_verdict.seq,
            current_bid=state.price,
            your_bid=given_verdict.your_bid,
            leads=given_verdict.leads,
            min_next_bid=minimum,
            reserve_met=state.reserve_met,
            kind=given_verdict.kind,
            epoch=state.epoch,
            ts_us=now_us,
            raised=given_verdict.raised,
        )


@pytest.fixture(scope="module")
def engine(redis_url: str) -> Iterator[Engine]:
    with Redis.from_url(redis_url, protocol=2) as redis:
        yield Engine(redis)


def _check_events(expected: list[bidding.DomainEvent | Moved | voiding.Voided], found: list[Event]) -> None:
    assert [event.seq for event in found] == [event.seq for event in expected]
    for model, event in zip(expected, found, strict=True):
        if isinstance(model, BidPlaced):
            assert isinstance(event, BidAccepted)
            assert (event.bid_id, event.user_id, event.kind, event.amount, event.previous_bid) == (
                model.bid_id,
                model.user_id,
                model.kind,
                model.amount,
                model.previous,
            )
            assert event.current_bid == event.amount
        elif isinstance(model, Extended):
            assert isinstance(event, AuctionExtended)
            assert (event.previous_end_us, event.end_us) == (model.previous_end_us, model.end_us)
        elif isinstance(model, Moved):
            assert (event.__struct_config__.tag, event.status) == (model.type, model.status)
            if isinstance(event, EndMoved):
                assert event.end_us == model.end_us
            if isinstance(event, AuctionPaused | EndMoved):
                assert event.reason == 'because it "rains", 100 %'
        elif isinstance(model, voiding.Voided):
            assert isinstance(event, BidVoided)
            told = {name: getattr(event, name) for name in voiding.Voided.__slots__}
            assert told == asdict(model)
        else:
            assert isinstance(model, Closed)
            assert isinstance(event, AuctionClosed)
            assert (event.winner_id, event.status) == (model.winner, "sold")


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
    assert engine.deadline() == _next_transition(model)
    _check_events(model.events, engine.events())


def _next_transition(model: Model) -> float | None:
    """Which instant the closer must be looking at."""
    state = model.state
    if state.status is Status.SCHEDULED:
        return model.terms.start_us
    if state.status is Status.OPEN:
        return state.end_us
    return None


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
    assert engine.deadline() == _next_transition(model)


def test_pauses_and_a_hard_end(engine: Engine) -> None:
    """The histories have the case: items with a hard end are resumed, and bids run into it where it is then."""
    pauses_are_equal(engine)
    assert SEEN.resumes >= 100
    assert SEEN.bounded_after >= 20


def play(engine: Engine, model: Model, step: Step, now_us: int) -> None:
    """One step through both."""
    engine.set_clock(now_us)
    if step.operation is not None:
        assert engine.operate(step.operation) == model.operate(step.operation, now_us)
    expected = [model.place(keyed, now_us) for keyed in step.bids]
    assert engine.place(step.bids) == expected


def assert_equal(engine: Engine, model: Model) -> None:
    assert engine.item().state == model.state
    assert engine.log() == list(model.log)
    _check_events(model.events, engine.events())


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
    assert engine.deadline() == _next_transition(model)
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


def test_a_raised_maximum_has_a_place_of_its_own_in_the_log(engine: Engine) -> None:
    """Also where nothing else came with it. A void counts on from a place, so no two bids may have the same."""
    engine.reset(Terms(ITEM, NOW_US, increment=Increment("flat", 1)), NOW_US)
    bids = [Bid("first", "ann", None, 100), Bid("raised", "ann", None, 200), Bid("next", "bob", 50)]
    for bid in bids:
        engine.place((KeyedBid(bid, None, False),))
    assert [(entry.position, entry.bid.bid_id) for entry in engine.log()] == [(1, "first"), (2, "raised"), (3, "next")]


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
