"""A void strikes one accepted bid; the item becomes what its other accepted bids make it.

The remaining bids are applied again, in their order, each with its own amount and maximum, by the rules under which
they were accepted (:func:`shared.domain.bidding.count_in`). So an item's price, leader and maxima always follow from
its standing bids alone, whatever the order in which others were struck.

Refusals, the end and the seqs stay. An ordinary bid stays one, even if buy-now would have been offered without the
struck bid: a void sells nothing. After the close nobody is promoted.

*Rows* are what was visible: the price that each bid set, and the automatic bid that answered it. A row never changes
its amount. If it no longer stands, it is marked (:func:`fate_of`). If no row has the new price, the leader's maximum
makes a new automatic bid, as an event of its own.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, Protocol

from shared.domain.auction import State, Status, Terms
from shared.domain.bidding import Accepted, Bid, BidPlaced, Outcome, count_in
from shared.domain.errors import BidNotFound, BidStruck, StateConflict
from shared.domain.lifecycle import is_due_to_close

Fate = Literal["voided", "repriced"]


def answers(bid_id: str) -> str:
    """The id of the automatic bid that answered a bid."""
    return f"{bid_id}/proxy"


def bids_anew(bid_id: str) -> str:
    """The id of the automatic bid that follows the void of this bid."""
    return f"{bid_id}/anew"


def cause_of(bid_id: str) -> str | None:
    """The bid that an automatic bid came with; None for the id of a bid that somebody placed."""
    for suffix in (answers(""), bids_anew("")):
        if bid_id.endswith(suffix):
            return bid_id.removesuffix(suffix)
    return None


@dataclass(frozen=True, slots=True)
class LogEntry:
    """An accepted bid, in the order of acceptance; or (``anew``) an automatic bid that followed a void.

    Attributes:
        position: the number of bids accepted up to this one; for ``anew``, up to the void.
        seq: of its own event; a raise has none, so the seq of the last event before it.
        shown: the price that it set; None for a raise, which nobody saw.
        answer, answered_by: amount and bidder of the automatic bid that answered it in the same step.
        row_stands, answer_stands: whether its row and that of the answer still stand.
    """

    position: int
    seq: int
    bid: Bid
    kind: Literal["bid", "buy_now", "anew"]
    shown: int | None = None
    answer: int | None = None
    answered_by: str | None = None
    is_struck: bool = False
    row_stands: bool = False
    answer_stands: bool = False

    def rows(self) -> Iterable[Row]:
        """The rows of this entry that stand."""
        if self.row_stands and self.shown is not None:
            yield Row(self.bid.bid_id, self.bid.user_id, self.seq, self.shown, is_automatic=self.kind == "anew")
        if self.answer_stands and self.answer is not None and self.answered_by is not None:
            yield Row(answers(self.bid.bid_id), self.answered_by, self.seq + 1, self.answer, is_automatic=True)

    def shows(self, placed: BidPlaced) -> bool:
        """Whether this is one of its standing rows."""
        if placed.kind == "proxy":
            return self.answer_stands and (self.answer, self.answered_by) == (placed.amount, placed.user_id)
        return self.row_stands and self.shown == placed.amount


def logged(position: int, bid: Bid, outcome: Outcome) -> LogEntry:
    """The entry of a bid that was just accepted."""
    assert isinstance(outcome.verdict, Accepted), "a refused bid is in no log"
    verdict, placed = outcome.verdict, [event for event in outcome.events if isinstance(event, BidPlaced)]
    answer = placed[1] if len(placed) > 1 else None
    return LogEntry(
        position,
        verdict.seq,
        bid,
        "buy_now" if verdict.kind == "buy_now" else "bid",
        shown=placed[0].amount if placed else None,
        answer=None if answer is None else answer.amount,
        answered_by=None if answer is None else answer.user_id,
        row_stands=bool(placed),
        answer_stands=answer is not None,
    )


@dataclass(frozen=True, slots=True)
class Row:
    """A visible bid, ``amount`` in minor units."""

    bid_id: str
    user_id: str
    seq: int
    amount: int
    is_automatic: bool


class Strike(Protocol):
    """The fields of a void's event that concern rows; :class:`shared.messages.BidVoided` is one."""

    @property
    def seq(self) -> int: ...
    @property
    def bid_id(self) -> str: ...
    @property
    def voided_seq(self) -> int: ...
    @property
    def bidder_id(self) -> str | None: ...
    @property
    def automatic_until(self) -> int | None: ...
    @property
    def current_bid(self) -> int: ...


def fate_of(strike: Strike, row: Row) -> Fate | None:
    """What a void makes of a row; None if the row still stands. The same rule is in ``apply_voids`` (SQL).

    - The struck bid, and the automatic bid that answered it, are ``voided``.
    - So are automatic bids from its maximum: those of its bidder, after it and before ``automatic_until``.
    - No row above the new price stands: automatic bids are ``voided``, bids of people are ``repriced``.

    An event from before this rule names no bidder; it strikes the bid and its answer.
    """
    if row.seq >= strike.seq:
        return None
    if row.bid_id in (strike.bid_id, answers(strike.bid_id)) and 0 <= row.seq - strike.voided_seq <= 1:
        return "voided"
    if strike.bidder_id is None:
        return None
    if row.is_automatic:
        until = strike.automatic_until or 0
        if row.amount > strike.current_bid:
            return "voided"
        return "voided" if row.user_id == strike.bidder_id and strike.voided_seq < row.seq < until else None
    return "repriced" if row.amount > strike.current_bid else None


class Replay:
    """Applies the standing bids again, one after another.

    Attributes:
        state: price, leader, maxima, count and reserve after the bids so far; its other fields mean nothing.
        is_shown: whether a standing row has the price.
    """

    def __init__(self, terms: Terms) -> None:
        self._terms = terms
        self.state = State(price=terms.start_price, reserve_met=terms.reserve_price is None)
        self.is_shown = True

    def add(self, entry: LogEntry) -> None:
        """Apply the next entry of the log; a struck one changes nothing."""
        if entry.kind == "anew":
            top = (self.state.price, self.state.leader)
            self.is_shown = self.is_shown or (entry.row_stands and (entry.shown, entry.bid.user_id) == top)
            return
        if entry.is_struck:
            return
        before = self.state
        outcome = count_in(self._terms, before, entry.bid, buys_now=entry.kind == "buy_now")
        self.state = outcome.state
        if self.state.price > before.price or before.leader is None:
            self.is_shown = entry.shows([event for event in outcome.events if isinstance(event, BidPlaced)][-1])


def automatic_until(log: Iterable[LogEntry], struck: LogEntry, seq: int) -> int | None:
    """The seq before which automatic bids of the struck bid's bidder came from its maximum.

    None if none did, because an earlier standing bid of theirs has as high a limit. Else the seq after their next
    standing bid with as high a limit or, without one, ``seq``, that of the void.
    """
    for entry in log:
        if entry.kind == "anew" or entry.is_struck or entry.position == struck.position:
            continue
        if entry.bid.user_id == struck.bid.user_id and entry.bid.limit >= struck.bid.limit:
            return None if entry.position < struck.position else entry.seq + 1
    return seq


@dataclass(frozen=True, slots=True)
class Voided:
    """A sequenced event: a bid was struck; a :class:`Strike`.

    ``current_bid`` is the new price, or the highest row that still stands if no row has that price. ``amount``: the
    price that the struck bid had set.
    """

    seq: int
    bid_id: str
    voided_seq: int
    bidder_id: str
    amount: int | None
    automatic_until: int | None
    current_bid: int
    offered_to: str | None


@dataclass(frozen=True, slots=True)
class AfterVoid:
    """The event, the automatic bid that follows it (None if a row has the new price), the state after both, and the
    log."""

    voided: Voided
    anew: BidPlaced | None
    state: State
    log: tuple[LogEntry, ...]


def void(terms: Terms, state: State, log: Sequence[LogEntry], bid_id: str, now_us: int) -> AfterVoid:
    """Strike a bid. ``log`` has every accepted bid of the item.

    Raises:
        StateConflict: the item is cancelled; or its end has come and it is not closed yet: the next bidder would be
            promoted and would win.
        BidNotFound: no bid of this id was accepted.
        BidStruck: it is struck already.
    """
    if state.status is Status.CANCELLED or is_due_to_close(state, now_us):
        raise StateConflict(terms.item_id, state.status.value, "void")
    struck = next((entry for entry in log if entry.bid.bid_id == bid_id and entry.kind != "anew"), None)
    if struck is None:
        raise BidNotFound(terms.item_id, bid_id, cause=cause_of(bid_id))
    if struck.is_struck:
        raise BidStruck(terms.item_id, bid_id)
    seq = state.seq + 1
    until = automatic_until(log, struck, seq)
    is_final = state.status.is_final
    # Mark the rows that go for other reasons than the new price, which is not known yet.
    strike = Voided(seq, bid_id, struck.seq, struck.bid.user_id, struck.shown, until, terms.start_price, None)
    log = _marked([replace(e, is_struck=e is struck or e.is_struck) for e in log], replace(strike, current_bid=2**63))
    replay = Replay(terms)
    for entry in log:
        replay.add(entry)
    found = replay.state
    shown, anew = found.price, None
    if not replay.is_shown and not is_final and found.leader is not None:
        rows = (row.amount for entry in log for row in entry.rows())
        shown = max((amount for amount in rows if amount <= found.price), default=terms.start_price)
        anew = BidPlaced(seq + 1, bids_anew(bid_id), found.leader, "proxy", found.price, shown)
    offered_to = found.leader if is_final and found.reserve_met else None
    strike = replace(strike, current_bid=shown, offered_to=offered_to)
    log = _marked(log, strike)
    if anew is not None:
        position = max(entry.position for entry in log)
        bid = Bid(anew.bid_id, anew.user_id, anew.amount)
        log = [*log, LogEntry(position, anew.seq, bid, "anew", shown=anew.amount, row_stands=True)]
    after = replace(
        state,
        status=Status.UNSOLD if is_final else state.status,
        price=found.price,
        leader=None if is_final else found.leader,
        leader_max=0 if is_final else found.leader_max,
        runner_up=found.runner_up,
        bid_count=found.bid_count,
        reserve_met=found.reserve_met,
        seq=seq if anew is None else anew.seq,
    )
    return AfterVoid(strike, anew, after, tuple(log))


def _marked(log: Iterable[LogEntry], strike: Voided) -> list[LogEntry]:
    """The log with the rows marked that a void strikes or reprices."""
    marked = []
    for entry in log:
        gone = {row.bid_id for row in entry.rows() if fate_of(strike, row) is not None}
        if gone:
            entry = replace(
                entry,
                row_stands=entry.row_stands and entry.bid.bid_id not in gone,
                answer_stands=entry.answer_stands and answers(entry.bid.bid_id) not in gone,
            )
        marked.append(entry)
    return marked
