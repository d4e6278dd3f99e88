"""An honest platform in memory, by the reference rules: what it stores, answers and shows must be accepted.

Each call takes one second of its own and one of rest, so that all requests follow each other in real time.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from shared.domain import lifecycle
from shared.domain.auction import State, Status, Terms, opening_state
from shared.domain.bidding import Accepted, Bid, BidPlaced, Closed, Extended, Refused, place_bid
from tests.faults.judging.records import Public, public_of
from tests.faults.rig.history import (
    Answer,
    Frame,
    History,
    KeyKind,
    Listed,
    LogEvent,
    Operation,
    Read,
    Request,
    Row,
    Sealed,
    Viewer,
)

SECOND_US = 1_000_000
EXTENDED_US = 7 * SECOND_US
"""By how much an operation extends an end."""
_EVENT_TYPES = {
    **{"pause": "paused", "resume": "resumed", "extend": "end_moved"},
    **{"cancel": "cancelled", "void": "voided"},
}


class Honest:
    """One item from its creation on; :meth:`history` is what the judge gets of it."""

    def __init__(self, terms: Terms) -> None:
        self.terms = terms
        self.now_s = 1.0
        self.state = opening_state(terms, self.now_us)
        self.requests: list[Request] = []
        self.reads: list[Read] = []
        self.operations: list[Operation] = []
        self.rows: list[Row] = []
        self.sealed: list[Sealed] = []
        self.events: list[LogEvent] = [LogEvent(1, 0, "created", self.now_us, self._body(self.state))]
        self.frames: list[Frame] = [self._frame(self.state, "snapshot")]
        self._placed: list[tuple[Bid, str]] = []
        self._struck: set[str] = set()

    @property
    def now_us(self) -> int:
        """The clock of its Redis."""
        return int(self.now_s * SECOND_US)

    # ------------------------------------------------------------------ requests

    def bid(
        self, name: str, user_id: str, amount: int | None = None, maximum: int | None = None, *, key: KeyKind = "bid_id"
    ) -> Request:
        """Place one; the platform gives an id of its own to a bid without ``bid_id``."""
        bid = Bid(name if key == "bid_id" else f"*{len(self.requests)}", user_id, amount, maximum)
        outcome = place_bid(self.terms, self.state, bid, self.now_us)
        if isinstance(outcome.verdict, Refused):
            return self._told(name, bid, key, outcome.verdict.code, None)
        self._placed.append((bid, outcome.verdict.kind))
        self._store(bid, outcome.events, outcome.state)
        self._seal(bid, key, name, outcome.verdict, outcome.state)
        self.state = outcome.state
        return self._told(name, bid, key, None, outcome.verdict)

    def _store(self, bid: Bid, events: tuple[Any, ...], after: State) -> None:
        price, end_us = self.state.price, self.state.end_us
        for event in events:
            price = event.amount if isinstance(event, BidPlaced) else price
            end_us = event.end_us if isinstance(event, Extended) else end_us
            seen = replace(after, seq=event.seq, price=price, end_us=end_us)
            self.frames.append(self._frame(seen, "bid" if isinstance(event, BidPlaced) else "other"))
            if isinstance(event, BidPlaced):
                leader = None if after.leader == event.user_id else after.leader
                row = Row(1, event.seq, event.bid_id, event.user_id, event.amount, event.kind, event.previous, leader)
                self.rows.append(replace(row, at_us=self.now_us))
            elif isinstance(event, Extended):
                body = {**self._body(seen), "previous_end_us": event.previous_end_us}
                self.events.append(LogEvent(1, event.seq, "extended", self.now_us, body))
            else:
                assert isinstance(event, Closed)
                body = {**self._body(seen), "winner_id": event.winner}
                self.events.append(LogEvent(1, event.seq, "closed", self.now_us, body))

    def _seal(self, bid: Bid, key: KeyKind, name: str, verdict: Accepted, after: State) -> None:
        if bid.maximum is None and key != "header" and not (verdict.kind == "buy_now" and bid.amount != after.price):
            return
        n = len(self.sealed) + 1
        known_as = None if key == "none" else name
        fact = (1, n, 1, after.seq, bid.bid_id, bid.user_id, bid.amount, bid.maximum, known_as, verdict.raised)
        self.sealed.append(Sealed(*fact, at_us=self.now_us))

    def _told(self, name: str, bid: Bid, key: KeyKind, code: str | None, verdict: Accepted | None) -> Request:
        public = public_of(self.terms, self.state)
        leads = public.leader == bid.user_id
        told = Answer(public.price, public.min_next_bid, leads, public.reserve_met)
        if verdict is not None:
            told = replace(told, bid_id=bid.bid_id, your_bid=verdict.your_bid)
        request = Request(
            name,
            bid.user_id,
            bid.amount,
            self.now_s - 0.4,
            self.now_s + 0.4,
            "refused" if verdict is None else "ok",
            None if verdict is None else verdict.seq,
            bid.maximum,
            key,
            code,
            told,
        )
        self.requests.append(request)
        self.now_s += 2
        return request

    def read(self) -> None:
        """Somebody asks for the item."""
        public = public_of(self.terms, self.state)
        self.reads.append(Read(1, self.state.seq, public.price, self.now_s - 0.4, self.now_s + 0.4, public))
        self.now_s += 2

    def operate(self, kind: str, bid_id: str | None = None) -> None:
        """Pause, resume, extend, cancel, or strike a bid."""
        reason = f"{kind} {len(self.operations)}"
        extra: dict[str, Any] = {"reason": reason}
        if kind == "void":
            assert bid_id is not None
            self._struck.add(bid_id)
            self.state, offered = self._without()
            extra |= {"bid_id": bid_id, "offered_to": offered}
            self.rows = [replace(row, is_voided=row.is_voided or row.bid_id == bid_id) for row in self.rows]
        elif kind == "extend":
            extra["previous_end_us"] = self.state.end_us
            self.state = lifecycle.extend(self.terms, self.state, self.now_us, by_us=EXTENDED_US)
        else:
            self.state = getattr(lifecycle, kind)(self.terms, self.state, self.now_us)
        event = LogEvent(1, self.state.seq, _EVENT_TYPES[kind], self.now_us, {**self._body(self.state), **extra})
        self.events.append(event)
        self.frames.append(self._frame(self.state, event.type))
        self.operations.append(Operation(kind, reason, self.now_s - 0.4, self.now_s + 0.4, "ok", None, bid_id))
        self.now_s += 2

    def standing(self) -> list[str]:
        """The ids of accepted bids that are not struck."""
        return [bid.bid_id for bid, _ in self._placed if bid.bid_id not in self._struck]

    def _without(self) -> tuple[State, str | None]:
        state = replace(opening_state(self.terms, 0), status=Status.OPEN)
        for bid, kind in self._placed:
            if bid.bid_id not in self._struck:
                terms = self.terms if kind == "buy_now" else replace(self.terms, buy_now_price=None)
                state = place_bid(replace(terms, end_us=None, soft_close=None), state, bid, terms.start_us).state
        is_over = self.state.status in (Status.SOLD, Status.UNSOLD)
        offered = state.leader if is_over and state.reserve_met else None
        kept = self.state
        return (
            replace(
                state,
                status=Status.UNSOLD if is_over else kept.status,
                leader=None if is_over else state.leader,
                leader_max=0 if is_over else state.leader_max,
                seq=kept.seq + 1,
                end_us=kept.end_us,
                hard_end_us=kept.hard_end_us,
                paused_us=kept.paused_us,
                extensions=kept.extensions,
                moved_us=kept.moved_us,
            ),
            offered,
        )

    def close(self) -> None:
        """The end has come, and the closer has seen it."""
        assert self.state.end_us is not None
        self.now_s = self.state.end_us / SECOND_US + 1
        self.state = lifecycle.advance(self.terms, self.state, self.now_us)
        body = {**self._body(self.state), "winner_id": self.state.leader}
        self.events.append(LogEvent(1, self.state.seq, "closed", self.now_us, body))
        self.frames.append(self._frame(self.state, "closed"))
        self.now_s += 2

    # ------------------------------------------------------------------ what is left of it

    def _body(self, state: State) -> dict[str, Any]:
        public = public_of(self.terms, state)
        told = public._asdict()
        return {**told, "current_bid": told.pop("price"), "highest_bidder_id": told.pop("leader")}

    def _frame(self, state: State, kind: str) -> Frame:
        public: Public = public_of(self.terms, state)
        return Frame(1, state.seq, public.price, kind != "snapshot", kind, public=public)

    def history(self) -> History:
        """All of it. One viewer stayed, another went in the middle and came back."""
        middle = max(1, len(self.frames) // 2)
        left, missed = self.frames[:middle], self.frames[middle:]
        since, to = left[-1], self.frames[-1]
        resumed = Frame(
            1, to.seq, None, is_event=False, type="resumed", replayed=len(missed), since=(since.epoch, since.seq)
        )
        rows = sorted(self.rows, key=lambda row: row.seq, reverse=True)
        return History(
            self.terms.item_id,
            self.requests,
            self.rows,
            [event.seq for event in self.events],
            self.state.price,
            self.state.seq,
            self.state.price,
            viewers=[Viewer("stayed", [self.frames]), Viewer("came back", [left, [resumed, *missed]])],
            reads=self.reads,
            terms=self.terms,
            events=self.events,
            sealed=self.sealed,
            redis_state=self.state,
            archived=public_of(self.terms, self.state),
            operations=self.operations,
            listed=[Listed(row.seq, row.bid_id, row.amount, row.kind, row.is_voided) for row in rows],
            wall_offset_s=0.0,
        )
