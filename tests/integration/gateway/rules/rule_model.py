"""The reference that the scripts are held against: the pure rules, with verdicts under keys, events and the log."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

from shared.domain import bidding, lifecycle, voiding
from shared.domain.auction import State, Status, Terms, minimum_bid
from shared.domain.bidding import Bid, BidPlaced, Closed, Extended
from shared.domain.errors import BidNotFound, BidStruck, StateConflict
from shared.domain.rulings import NO_RULINGS, PASSING, Rulings
from shared.messages import (
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
    KeyedBid,
    Step,
    end_asked,
)
from tests.integration.gateway.rules.rule_engine import Engine

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


def assert_events(expected: list[bidding.DomainEvent | Moved | voiding.Voided], found: list[Event]) -> None:
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


def next_transition(model: Model) -> float | None:
    """Which instant the closer must be looking at."""
    state = model.state
    if state.status is Status.SCHEDULED:
        return model.terms.start_us
    if state.status is Status.OPEN:
        return state.end_us
    return None


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
    assert_events(model.events, engine.events())
