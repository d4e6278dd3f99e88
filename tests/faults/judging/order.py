"""Linearizability of one item: is there an instant for every request, within it, that explains all answers at once?

In general that is a search. Here the platform says itself in which order it decided, by the numbers in the log, so
what is left is linear: the decisions stand in that order, and every request that changed nothing (a read, a refusal, a
look for a key, a conflict) stands somewhere between two of them. It may stand wherever the state explains its answer,
but not before a decision that was acknowledged before it was sent, nor after one that was sent after it was answered,
nor before where another stands that was answered before it was sent. Each is put at the earliest such place, in the
order of their sending: whatever fits at all fits there, so a request that finds no place proves that the history is not
linearizable.
"""

from __future__ import annotations

import bisect
import heapq
import itertools
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from shared.domain.auction import State, Status
from shared.domain.bidding import Bid, Refused, place_bid
from tests.faults.judging.ledger import KEPT_REFUSALS, Ledger, Sent
from tests.faults.judging.records import Answer, Operation, Records, Request, public_of
from tests.faults.judging.replay import Decision, Replay
from tests.faults.judging.wording import report

_SLACK_S = 0.05
"""How far the clock of Redis may be from the wall clock of the clients, on one machine."""


@dataclass(frozen=True, slots=True)
class _Observer:
    """A request that changed nothing. ``explains``: whether the state after so many decisions explains its answer."""

    sent_s: float
    answered_s: float
    named: str
    kind: str
    explains: Callable[[int], bool]


class _Times:
    """For each decision, the instant before which it cannot have been made, and the one by which it was made."""

    def __init__(self, bounds: Sequence[tuple[float, float]]) -> None:
        self.bounds = bounds
        by_sending = sorted((sent_s, position) for position, (sent_s, _) in enumerate(bounds, 1) if sent_s > -math.inf)
        self._sent = [sent_s for sent_s, _ in by_sending]
        self._first = [position for _, position in by_sending]
        for index in range(len(self._first) - 2, -1, -1):
            self._first[index] = min(self._first[index], self._first[index + 1])
        self.by_acknowledgement = sorted(
            (known_s, position) for position, (_, known_s) in enumerate(bounds, 1) if known_s < math.inf
        )

    def latest(self, answered_s: float) -> int:
        """The last place of who was answered then: before all decisions that were sent later."""
        index = bisect.bisect_right(self._sent, answered_s)
        return self._first[index] - 1 if index < len(self._first) else len(self.bounds)


def order_violations(records: Records, replay: Replay, ledger: Ledger) -> Iterator[str]:
    """What no order of instants explains."""
    bounds = _bounds(records, replay, ledger)
    times = _Times(bounds)
    yield from _decided_in_real_time(times, replay)
    yield from _answers_say_what_was_decided(replay, ledger)
    observers = sorted(_observers(records, replay, ledger, bounds), key=lambda each: each.sent_s)
    yield from _all_find_a_place(times, len(replay.decisions), observers)


def _bounds(records: Records, replay: Replay, ledger: Ledger) -> list[tuple[float, float]]:
    operations = {operation.reason: operation for operation in records.operations or ()}
    bounds = []
    for position, decision in enumerate(replay.decisions, 1):
        sent_s, known_s = -math.inf, math.inf
        sent = ledger.asked_for.get(position)
        if sent is not None and sent.effects:
            sent_s, known_s = sent.sent_s, sent.acknowledged_s
        elif decision.event is not None and (operation := operations.get(str(decision.event.body.get("reason")))):
            sent_s, known_s = operation.invoked_s, operation.completed_s if operation.outcome == "ok" else math.inf
        bounds.append((sent_s, known_s))
    return bounds


def _decided_in_real_time(times: _Times, replay: Replay) -> Iterator[str]:
    """A bid that was sent after another one was acknowledged has the higher number."""
    late, latest_s = set(), -math.inf
    for position, (sent_s, known_s) in enumerate(times.bounds, 1):
        latest_s = max(latest_s, sent_s)
        if latest_s > known_s:
            decision = replay.decisions[position - 1]
            late.add(f"one before seq {decision.seq}")
    yield from report("bids were accepted after a higher or equal one was acknowledged", late)


def _answers_say_what_was_decided(replay: Replay, ledger: Ledger) -> Iterator[str]:
    """Price, minimum and lead in a 201 are those after its bid, or after all that its bid brought about."""
    wrong = set()
    for position, sent in ledger.asked_for.items():
        after = replay.state(position)
        if after is None:
            continue
        decision = replay.decisions[position - 1]
        own = replay.public.get(decision.seq)
        public = public_of(replay.terms, after)
        for request in sent.oks:
            told = request.told
            if told is None:
                continue
            said = (told.current_bid, told.min_next_bid, told.leads, told.reserve_met)
            true = [
                (each.price, each.min_next_bid, each.leader == request.user_id, each.reserve_met)
                for each in (public, own)
                if each is not None
            ]
            if said not in true:
                wrong.add(f"{sent.name} at seq {decision.seq}: {said} where {true[0]}")
    yield from report("acceptances tell what was not decided", wrong)


def _all_find_a_place(times: _Times, last: int, observers: Sequence[_Observer]) -> Iterator[str]:
    unexplained: dict[str, set[str]] = defaultdict(set)
    known, known_place = iter(times.by_acknowledgement), 0
    coming = next(known, None)
    answered: list[tuple[float, int]] = []
    for observer in observers:
        while coming is not None and coming[0] < observer.sent_s:
            known_place = max(known_place, coming[1])
            coming = next(known, None)
        while answered and answered[0][0] < observer.sent_s:
            known_place = max(known_place, heapq.heappop(answered)[1])
        latest = times.latest(observer.answered_s)
        place = next((each for each in range(known_place, latest + 1) if observer.explains(each)), None)
        if place is None:
            was_true = any(observer.explains(each) for each in range(min(known_place, last + 1)))
            unexplained[_complaint(observer.kind, was_true)].add(observer.named)
            place = known_place
        heapq.heappush(answered, (observer.answered_s, place))
    for complaint, found in unexplained.items():
        yield from report(complaint, found)


def _complaint(kind: str, was_true: bool) -> str:
    if kind == "read":
        return "reads were behind what had been answered" if was_true else "reads showed what is not in PostgreSQL"
    if was_true:
        return f"{kind}s are true only of states that were over before they were asked for"
    return f"{kind}s are true of no state at any moment of the request"


# ---------------------------------------------------------------------- who observes what


def _observers(
    records: Records, replay: Replay, ledger: Ledger, bounds: Sequence[tuple[float, float]]
) -> Iterator[_Observer]:
    kept = _Kept(records, replay, bounds)
    for read in records.reads:
        if kept.is_lost(read.invoked_s, read.price):
            continue
        named = f"{read.epoch}:{read.seq} at {read.price}"

        def shows(place: int, epoch: int = read.epoch, seq: int = read.seq, price: int = read.price) -> bool:
            state = replay.state(place)
            if state is None:
                return place < len(replay.decisions) and replay.decisions[place].seq > seq
            return state.seq == seq and state.price == price and state.epoch <= epoch

        def shows_all(place: int, read_public: object = read.public) -> bool:
            state = replay.state(place)
            return state is None or read_public is None or public_of(replay.terms, state) == read_public

        def both(place: int, one: Callable[[int], bool] = shows, two: Callable[[int], bool] = shows_all) -> bool:
            return one(place) and two(place)

        yield _Observer(read.invoked_s, read.completed_s, named, "read", both)
    for sent in ledger.sent.values():
        yield from _of_a_bid(records, replay, sent, kept)
    standing = _Standing(replay)
    for operation in records.operations or ():
        if operation.outcome == "refused":
            yield _conflict(records, replay, standing, operation)


class _Kept:
    """What Redis had left after each of its losses, by the price of the item.

    Who asked before a loss may have been told a price that no bid has any more: one above what was left. Bids that were
    acknowledged are judged all the same; this is about reads and refusals, which promise nothing.
    """

    def __init__(self, records: Records, replay: Replay, bounds: Sequence[tuple[float, float]]) -> None:
        """``bounds``: of each decision, when it was asked for and when it was acknowledged."""
        self._lost_s = sorted(records.lost_s)
        states = [state for place in range(len(replay.decisions) + 1) if (state := replay.state(place)) is not None]
        self._left = [before.price for before, after in itertools.pairwise(states) if after.epoch > before.epoch] or [
            state.price for state in states[-1:]
        ]
        if len(self._left) != len(self._lost_s):
            # An item need not be touched by a loss, or have a bid after it. What was acknowledged before it is left.
            places = [_last_acknowledged(bounds, lost_s) for lost_s in self._lost_s]
            self._left = [0 if (state := replay.state(place)) is None else state.price for place in places]

    def is_lost(self, invoked_s: float, price: int) -> bool:
        """Whether a price that was told to a request of this moment may be one that was lost since."""
        before = bisect.bisect_left(self._lost_s, invoked_s)
        return before < len(self._lost_s) and price > self._left[before]


def _last_acknowledged(bounds: Sequence[tuple[float, float]], moment_s: float) -> int:
    """How many decisions there were up to the last one that was acknowledged before that moment."""
    return max((place for place, (_, known_s) in enumerate(bounds, 1) if known_s < moment_s), default=0)


def _of_a_bid(records: Records, replay: Replay, sent: Sent, kept: _Kept) -> Iterator[_Observer]:
    first_s = min(each.invoked_s for each in sent.requests)
    for request in sent.requests:
        if request.outcome == "absent":

            def undecided(place: int) -> bool:
                return sent.position is None or place < sent.position

            yield _Observer(request.invoked_s, request.completed_s, f"key {sent.name}", "absent key", undecided)
        elif request.outcome == "refused":
            # Word for word what was decided when the key was first seen, where it is kept.
            since_s = first_s if request.code in KEPT_REFUSALS and request.key != "none" else request.invoked_s
            named = f"{sent.name}: {request.code or 'refused'}"
            if request.told is not None:
                told = request.told
                if kept.is_lost(request.invoked_s, told.current_bid):
                    continue
                named += f" with {told.current_bid}, {told.min_next_bid}, {told.leads}, {told.reserve_met}"
            yield _Observer(since_s, request.completed_s, named, "refusal", _refuses(records, replay, request, since_s))


def _refuses(records: Records, replay: Replay, request: Request, since_s: float) -> Callable[[int], bool]:
    """Whether the rules, at that state, refuse the bid with this code and these numbers."""
    bid = Bid(request.bid_id, request.user_id, request.amount, request.max_amount)

    def explains(place: int) -> bool:
        state = replay.state(place)
        if state is None:
            return True
        if request.told is not None and not _says(replay, state, request.told, request.user_id):
            return False
        if request.code == "CLOSED" and state.status is not Status.UNSOLD:
            return state.status in (Status.OPEN, Status.SCHEDULED) and _has_ended(records, state, request.completed_s)
        if request.code == "NOT_STARTED":
            return _not_begun(records, replay, state, since_s)
        # Whether it is in time has been seen to; what is asked here is what the rules say at this state.
        verdict = place_bid(replay.terms, replace(state, end_us=None), bid, replay.terms.start_us).verdict
        return isinstance(verdict, Refused) and request.code in (None, verdict.code)

    return explains


def _says(replay: Replay, state: State, told: Answer, user_id: str) -> bool:
    public = public_of(replay.terms, state)
    return (told.current_bid, told.min_next_bid, told.leads, told.reserve_met) == (
        public.price,
        public.min_next_bid,
        public.leader == user_id,
        public.reserve_met,
    )


def _has_ended(records: Records, state: State, answered_s: float) -> bool:
    """Whether the end of this state came before the answer. True where the clocks cannot be compared."""
    if state.end_us is None:
        return False
    return records.wall_offset_s is None or (answered_s + records.wall_offset_s + _SLACK_S) * 1e6 >= state.end_us


def _not_begun(records: Records, replay: Replay, state: State, sent_s: float) -> bool:
    if state.status not in (Status.SCHEDULED, Status.OPEN):
        return False
    return records.wall_offset_s is None or (sent_s + records.wall_offset_s - _SLACK_S) * 1e6 < replay.terms.start_us


class _Standing:
    """The places from which on and up to which each bid stood."""

    def __init__(self, replay: Replay) -> None:
        self._accepted: dict[str, int] = {}
        self._struck: dict[str, int] = {}
        for position, decision in enumerate(replay.decisions, 1):
            if decision.bid is not None:
                self._accepted[decision.bid.bid_id] = position
            elif _is_void(decision):
                assert decision.event is not None
                self._struck[str(decision.event.body.get("bid_id"))] = position

    def stands(self, bid_id: str, place: int) -> bool:
        """Whether it was accepted and not struck after so many decisions."""
        return self._accepted.get(bid_id, math.inf) <= place < self._struck.get(bid_id, math.inf)


def _is_void(decision: Decision) -> bool:
    return decision.event is not None and decision.event.type == "voided"


def _conflict(records: Records, replay: Replay, standing: _Standing, operation: Operation) -> _Observer:
    """An operation that was refused: at some moment the item's state, or the bid's, did not allow it."""

    def explains(place: int) -> bool:
        state = replay.state(place)
        if state is None:
            return True
        if operation.code in ("BID_NOT_FOUND", "BID_STRUCK"):
            return not standing.stands(operation.bid_id or "", place)
        ended = state.status is Status.OPEN and _has_ended(records, state, operation.completed_s)
        if operation.kind == "pause":
            return ended or state.status is not Status.OPEN
        if operation.kind == "resume":
            return state.status is not Status.PAUSED
        if operation.kind == "cancel":
            return ended or state.status.is_final
        if operation.kind == "extend":
            return ended or state.status.is_final or state.end_us is None
        return ended or state.status is Status.CANCELLED

    named = f"{operation.kind} {operation.reason}: {operation.code}"
    return _Observer(operation.invoked_s, operation.completed_s, named, "conflict", explains)
