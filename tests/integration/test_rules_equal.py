"""The pure rules and ``place_bids.lua`` come to the same verdicts, events and states, on a real Redis."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import given, settings
from redis import Redis

from api_gateway.engine.verdicts import KEY_REUSED, AcceptedBid, RefusedBid, Verdict
from shared.domain import bidding, lifecycle
from shared.domain.auction import State, Status, Terms, minimum_bid, opening_state
from shared.domain.bidding import Bid, BidPlaced, Closed, Extended
from shared.domain.errors import StateConflict
from shared.messages import (
    AuctionCancelled,
    AuctionClosed,
    AuctionExtended,
    AuctionPaused,
    BidAccepted,
    Event,
)
from tests.histories import NOW_US, KeyedBid, Step, histories, terms
from tests.integration.rule_engine import ITEM, Engine
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


@dataclass
class Model:
    """The reference: the pure rules, the verdicts by bidder and key, and who sent a bid id."""

    terms: Terms
    state: State
    stored: dict[tuple[str, str], tuple[Bid, Verdict]] = field(default_factory=dict)
    owners: dict[str, str] = field(default_factory=dict)
    events: list[bidding.DomainEvent | Moved] = field(default_factory=list)

    def operate(self, name: str, now_us: int) -> bool:
        """Run an operation; whether the state allowed it."""
        before = self.state
        try:
            after = OPERATIONS[name](self.terms, before, now_us)
        except StateConflict:
            return False
        if before.status is Status.SCHEDULED and name == "advance" and after.seq > before.seq:
            self.events.append(Moved(before.seq + 1, "opened", Status.OPEN))
        if after.status in (Status.SOLD, Status.UNSOLD) and after.seq > before.seq:
            self.events.append(Moved(after.seq, "closed", after.status))
        if name != "advance":
            self.events.append(Moved(after.seq, f"{name}{'led' if name == 'cancel' else 'd'}", after.status))
        self.state = after
        return True

    def place(self, keyed: KeyedBid, now_us: int) -> Verdict:
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
        outcome = bidding.place_bid(self.terms, self.state, bid, now_us)
        # The script opens a scheduled item with the first bid that finds it started, even if it refuses the bid; that
        # is no event, and the state is only written with one.
        self.state = outcome.state
        self.events.extend(outcome.events)
        verdict = self._verdict(bid, outcome, now_us)
        if keyed.key is not None and by_status is None:
            self.stored[(bid.user_id, keyed.key)] = (bid, verdict)
            if keyed.key_is_bid_id:
                self.owners.setdefault(keyed.key, bid.user_id)
        return verdict

    def _verdict(self, bid: Bid, outcome: bidding.Outcome, now_us: int) -> Verdict:
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


def _check_events(expected: list[bidding.DomainEvent | Moved], found: list[Event]) -> None:
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
            if isinstance(event, AuctionPaused):
                assert event.reason == 'because it "rains", 100 %'
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
