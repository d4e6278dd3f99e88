"""The model: what is stored, decided once more by the reference rules, one decision after the other.

A decision is one atomic step of the platform: a bid with the automatic bid, the extension or the close that it caused;
a maximum that was raised without an event; an operation; the opening or the close by the clock. The log's numbers give
their order. Each is put to :mod:`shared.domain` with the content and the instant that are stored for it, and must come
out as it is stored. A void strikes its bid and has all others placed anew.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from shared.domain import lifecycle
from shared.domain.auction import State, Status, Terms, opening_state
from shared.domain.bidding import Accepted, Bid, BidPlaced, Closed, DomainEvent, Extended, place_bid
from shared.domain.errors import StateConflict
from tests.faults.judging.records import LogEvent, Public, Records, Row, Sealed, public_of

_OPERATIONS: Mapping[str, Callable[[Terms, State, int], State]] = {
    "paused": lifecycle.pause,
    "resumed": lifecycle.resume,
    "cancelled": lifecycle.cancel,
}

_ANEW = "/anew"


@dataclass(frozen=True, slots=True)
class Decision:
    """One step. ``bid`` for an accepted bid, with ``raised`` where it has no event; ``event`` for all others."""

    epoch: int
    seq: int
    at_us: int
    bid: Bid | None = None
    kind: str = ""
    raised: bool = False
    key: str | None = None
    event: LogEvent | None = None


@dataclass(slots=True)
class Replay:
    """The decisions in order, the state before the first and after each, as far as the rules agree with the log.

    ``public``: by seq, what everybody could see after that event. ``complaints``: where they do not agree; what comes
    after the first of those is not replayed.
    """

    terms: Terms
    decisions: list[Decision]
    states: list[State] = field(default_factory=list)
    public: dict[int, Public] = field(default_factory=dict)
    complaints: list[str] = field(default_factory=list)
    is_whole: bool = False

    def state(self, position: int) -> State | None:
        """The state after so many decisions, None where it is not known."""
        return self.states[position] if position < len(self.states) else None


class _Broken(Exception):
    """The rules and the log disagree."""


class _Untold(Exception):
    """What an event was is not known, so the model ends here."""


def replayed(records: Records) -> Replay:
    """Replay what is stored."""
    terms = records.terms or Terms(records.item_id, start_us=0)
    events = records.events or [LogEvent(1, seq, "created" if seq == 0 else "") for seq in records.other_seqs]
    created = next((event for event in events if event.type == "created"), None)
    log: list[Row | LogEvent] = [*records.rows, *(each for each in events if each is not created)]
    sealed = {each.bid_id: each for each in records.sealed}
    run = _Run(terms, log, sealed, created)
    replay = Replay(terms, list(run.decisions()))
    try:
        for state in run.states(replay):
            replay.states.append(state)
        replay.is_whole = True
    except _Broken as broken:
        replay.complaints.append(str(broken))
    except _Untold:
        pass
    return replay


def _place(entry: Row | LogEvent | Sealed) -> tuple[int, int, int, int, int]:
    # A raised maximum repeats the number before it.
    if isinstance(entry, Sealed):
        return (entry.epoch, entry.seq, 1, entry.n, entry.at)
    return (entry.epoch, entry.seq, 0, 0, 0)


class _Run:
    def __init__(
        self, terms: Terms, log: list[Row | LogEvent], sealed: Mapping[str, Sealed], created: LogEvent | None
    ) -> None:
        self._terms = terms
        self._log = sorted(log, key=_place)
        self._sealed = sealed
        self._created = created
        self._by_seq = {entry.seq: entry for entry in log}
        self._placed: list[tuple[Bid, str]] = []
        self._struck: set[str] = set()

    def decisions(self) -> Iterator[Decision]:
        """What began a step of its own: everything but what a bid has brought with it."""
        entries: list[Row | LogEvent | Sealed] = [
            *self._log,
            *(each for each in self._sealed.values() if each.is_raise),
        ]
        sold = False
        for entry in sorted(entries, key=_place):
            if isinstance(entry, Row):
                if entry.kind == "proxy":
                    continue
                sold = entry.kind == "buy_now"
                yield self._bid(entry)
            elif isinstance(entry, Sealed):
                bid = Bid(entry.bid_id, entry.user_id, entry.amount, entry.max_amount)
                yield Decision(entry.epoch, entry.seq, entry.at_us, bid, "bid", True, entry.key)
            elif entry.type == "extended" or (entry.type == "closed" and sold):
                sold = False
            else:
                yield Decision(entry.epoch, entry.seq, entry.at_us, event=entry)

    def _bid(self, row: Row) -> Decision:
        """A bid without sealed facts is a plain one: its amount is the price that it made."""
        fact = self._sealed.get(row.bid_id)
        if fact is None:
            return Decision(row.epoch, row.seq, row.at_us, Bid(row.bid_id, row.user_id, row.amount), row.kind)
        bid = Bid(row.bid_id, row.user_id, fact.amount, fact.max_amount)
        return Decision(row.epoch, row.seq, row.at_us, bid, row.kind, False, fact.key)

    def states(self, replay: Replay) -> Iterator[State]:
        """The state at the beginning and after each decision; ``replay.public`` is filled on the way."""
        state = opening_state(self._terms, 0 if self._created is None else self._created.at_us)
        if self._created is not None:
            state = replace(state, epoch=self._created.epoch)
            self._see(replay, state, self._created)
        yield state
        for decision in replay.decisions:
            if decision.epoch < state.epoch:
                raise _Broken(f"the epoch falls from {state.epoch} to {decision.epoch} at seq {decision.seq}")
            expected = state.seq if decision.raised else state.seq + 1
            if decision.seq != expected:
                raise _Broken(f"a decision has seq {decision.seq}, where the one before it makes that {expected}")
            before = replace(state, epoch=decision.epoch)
            if decision.bid is not None:
                state = self._decide(replay, before, decision, decision.bid)
            else:
                assert decision.event is not None
                state = self._operate(replay, before, decision.event)
            yield state

    # ------------------------------------------------------------------ bids

    def _decide(self, replay: Replay, state: State, decision: Decision, bid: Bid) -> State:
        outcome = place_bid(self._terms, state, bid, decision.at_us)
        named = f"bid {bid.bid_id} of {bid.user_id} at seq {decision.seq}"
        if not isinstance(outcome.verdict, Accepted):
            raise _Broken(f"{named} is stored, and by the rules it is refused: {outcome.verdict.code}")
        if outcome.verdict.raised != decision.raised:
            raise _Broken(f"{named} raises a maximum {'without' if outcome.verdict.raised else 'with'} an event")
        self._placed.append((bid, decision.kind))
        price, end_us = state.price, state.end_us
        for event in outcome.events:
            self._compare(named, event, self._by_seq.get(event.seq), outcome.state.leader)
            if isinstance(event, BidPlaced):
                price = event.amount
            elif isinstance(event, Extended):
                end_us = event.end_us
            seen = replace(outcome.state, seq=event.seq, price=price, end_us=end_us)
            self._see(replay, seen, self._by_seq.get(event.seq))
        return outcome.state

    def _compare(self, named: str, event: DomainEvent, stored: Row | LogEvent | None, leader: str | None) -> None:
        """What a bid brings by the rules is what is stored under that number."""
        told: tuple[Any, ...] | None = None
        if isinstance(event, BidPlaced):
            wanted: tuple[Any, ...] = (event.kind, event.user_id, event.amount, leader)
            if isinstance(stored, Row):
                told = (stored.kind, stored.user_id, stored.amount, stored.leader or stored.user_id)
                if stored.previous is not None:
                    wanted, told = (*wanted, event.previous), (*told, stored.previous)
        elif isinstance(event, Extended):
            wanted = ("extended", event.previous_end_us, event.end_us)
            if isinstance(stored, LogEvent):
                told = (stored.type, stored.body.get("previous_end_us"), stored.body.get("end_us"))
        else:
            assert isinstance(event, Closed)
            wanted = ("closed", event.winner)
            if isinstance(stored, LogEvent):
                told = (stored.type, stored.body.get("winner_id"))
        if told != wanted:
            raise _Broken(f"{named} leads by the rules to {wanted} at seq {event.seq}, and what is stored is {told}")

    # ------------------------------------------------------------------ operations and the clock

    def _operate(self, replay: Replay, state: State, event: LogEvent) -> State:
        named = f"{event.type} at seq {event.seq}"
        if not event.type:
            raise _Untold
        if event.type == "voided":
            return self._void(replay, state, event)
        after = self._transition(state, event, named)
        self._see(replay, after, event)
        return after

    def _transition(self, state: State, event: LogEvent, named: str) -> State:
        if event.type in _OPERATIONS or event.type == "end_moved":
            try:
                if event.type == "end_moved":
                    by_us = int(event.body["end_us"]) - int(event.body["previous_end_us"])
                    return lifecycle.extend(self._terms, state, event.at_us, by_us=by_us)
                return _OPERATIONS[event.type](self._terms, state, event.at_us)
            except StateConflict as conflict:
                raise _Broken(f"{named} is stored, and by the rules it cannot be: {conflict}") from None
        if event.type == "opened" and lifecycle.is_due_to_open(self._terms, state, event.at_us):
            return replace(state, status=Status.OPEN, seq=state.seq + 1)
        if event.type == "closed" and lifecycle.is_due_to_close(state, event.at_us):
            return lifecycle.advance(self._terms, state, event.at_us)
        raise _Broken(f"{named} is stored, and nothing has brought it about")

    def _void(self, replay: Replay, state: State, event: LogEvent) -> State:
        """RULES: the item becomes what its other accepted bids make it, as if they alone had been placed."""
        struck = str(event.body.get("bid_id"))
        named = f"the void of {struck} at seq {event.seq}"
        if struck in self._struck or struck not in {bid.bid_id for bid, _ in self._placed}:
            raise _Broken(f"{named} is stored, and there is no such bid")
        if state.status is Status.CANCELLED or lifecycle.is_due_to_close(state, event.at_us):
            raise _Broken(f"{named} is stored, and the item is closing or cancelled")
        self._struck.add(struck)
        made = self._without_the_struck()
        kept = replace(
            state,
            price=made.price,
            leader=made.leader,
            leader_max=made.leader_max,
            runner_up=made.runner_up,
            bid_count=made.bid_count,
            reserve_met=made.reserve_met,
            seq=state.seq + 1,
        )
        if state.status not in (Status.SOLD, Status.UNSOLD):
            return self._bids_anew(replay, named, kept, event)
        winner = made.leader if made.reserve_met else None
        if event.body.get("offered_to") != winner:
            raise _Broken(f"{named} offers to {event.body.get('offered_to')}, and without it {winner} had won")
        kept = replace(kept, status=Status.UNSOLD, leader=None, leader_max=0)
        self._see(replay, kept, event)
        return kept

    def _bids_anew(self, replay: Replay, named: str, after: State, event: LogEvent) -> State:
        """Where no bid that is left shows the new price, the leader's maximum bids anew, as the next event."""
        row = self._by_seq.get(after.seq + 1)
        if not isinstance(row, Row) or row.kind != "proxy" or not row.bid_id.endswith(_ANEW):
            self._see(replay, after, event)
            return after
        if (row.user_id, row.amount) != (after.leader, after.price):
            raise _Broken(f"{named} has {row.user_id} bid {row.amount} anew, and {after.leader} leads at {after.price}")
        shown = after.price if row.previous is None else row.previous
        self._see(replay, replace(after, price=shown), event)
        after = replace(after, seq=row.seq)
        self._see(replay, after, row)
        return after

    def _without_the_struck(self) -> State:
        # The end is left out: extensions stay, and what was in time once is in time.
        timeless = replace(self._terms, end_us=None, soft_close=None)
        state = replace(opening_state(timeless, timeless.start_us), status=Status.OPEN)
        for bid, kind in self._placed:
            if bid.bid_id in self._struck:
                continue
            # Who has bid did not buy, though without the struck bid it might have been offered.
            terms = timeless if kind == "buy_now" else replace(timeless, buy_now_price=None)
            outcome = place_bid(terms, state, bid, timeless.start_us)
            if not isinstance(outcome.verdict, Accepted):
                # Only where increments fall as prices rise. It was accepted, so it counts; these rules do not say how.
                raise _Untold
            state = outcome.state
        return state

    # ------------------------------------------------------------------ what everybody sees

    def _see(self, replay: Replay, state: State, stored: Row | LogEvent | None) -> None:
        """Note the public state of this event, and compare it with what the event says where its body is known."""
        public = public_of(self._terms, state)
        replay.public[state.seq] = public
        if isinstance(stored, LogEvent) and stored.body:
            told = public_of_body(stored.body)
            if told != public:
                raise _Broken(f"{stored.type} at seq {stored.seq} says {told}, and by the rules it is {public}")


def public_of_body(body: Mapping[str, Any]) -> Public:
    """The public state in an event's body."""
    return Public(
        body["current_bid"],
        body["highest_bidder_id"],
        body["bid_count"],
        body["min_next_bid"],
        body["status"],
        body["reserve_met"],
        body["end_us"],
    )
