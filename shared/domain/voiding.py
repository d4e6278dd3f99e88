"""What a void does: it strikes one accepted bid, and the item becomes what its other accepted bids make it.

The bids that remain are counted in anew, in their order, each with its own amount and its own maximum, by the rules
under which they were accepted (:func:`shared.domain.bidding.count_in`). So an item's price, leader and maxima are at
any time a function of its standing bids, and it does not matter in which order others were struck.

What stays as it was: who was refused, the end, the numbers. A bid that was taken as an ordinary one stays one, also
where buy-now would have been offered without the struck bid: a void sells nothing. After the close nobody is promoted.

*Rows* are what was visible: of each bid the price that it set, and the automatic bid that answered it. A row keeps its
amount for ever. Where it no longer holds, it is marked (:func:`fate_of`), and where the new price is one that no row
has, the leader's maximum bids anew, as an event of its own.
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
    """The id of the automatic bid that a leader's maximum makes after this bid was struck."""
    return f"{bid_id}/anew"


def cause_of(bid_id: str) -> str | None:
    """The bid with which an automatic bid came, None for the id of a bid that somebody placed."""
    for suffix in (answers(""), bids_anew("")):
        if bid_id.endswith(suffix):
            return bid_id.removesuffix(suffix)
    return None


@dataclass(frozen=True, slots=True)
class LogEntry:
    """An accepted bid in the order of acceptance; or (``anew``) an automatic bid that followed a void.

    Attributes:
        position: how many bids were accepted up to this one; of an ``anew`` up to the void.
        seq: of its own event; of a raised maximum, which has none, of the last event before it.
        shown: the price that it set, None where nobody saw it: a maximum was raised.
        answer, answered_by: the automatic bid that answered it in the same step, and whose it is.
        row_stands, answer_stands: whether these still hold.
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
        """Its rows that stand."""
        if self.row_stands and self.shown is not None:
            yield Row(self.bid.bid_id, self.bid.user_id, self.seq, self.shown, is_automatic=self.kind == "anew")
        if self.answer_stands and self.answer is not None and self.answered_by is not None:
            yield Row(answers(self.bid.bid_id), self.answered_by, self.seq + 1, self.answer, is_automatic=True)

    def shows(self, placed: BidPlaced) -> bool:
        """Whether one of its rows that stand is this."""
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
    """What the event of a void tells about rows; :class:`shared.messages.BidVoided` is one."""

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
    """What a void makes of a row, None where that goes on to hold. The same rule is in ``apply_voids`` (SQL).

    - The struck bid, and the automatic bid that answered it, are ``voided``.
    - So are automatic bids that came from its maximum: its bidder's, after it and before ``automatic_until``.
    - Nothing above the new price holds: automatic bids are ``voided``, a bid that stands is ``repriced``.

    An event from before there was this rule names no bidder; it strikes the bid and its answer.
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
    """Counts the standing bids in anew, one after another.

    Attributes:
        state: price, leader, maxima, count and reserve as the bids so far make them; nothing else in it counts.
        is_shown: whether the price is that of a row which stands.
    """

    def __init__(self, terms: Terms) -> None:
        self._terms = terms
        self.state = State(price=terms.start_price, reserve_met=terms.reserve_price is None)
        self.is_shown = True

    def add(self, entry: LogEntry) -> None:
        """The next entry of the log; a struck one changes nothing."""
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
    """Before which number automatic bids of the struck bid's bidder came from its maximum.

    None where none did: an earlier bid of theirs, which stands, went as far. Else up to their next standing bid that
    goes as far, and where there is none, up to ``seq``, the void itself.
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

    ``current_bid`` is the highest row that still holds, or the new price. ``amount``: what the struck bid had shown.
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
    """The event, the automatic bid that follows it (None where a row has the new price), the state after both, and the
    log."""

    voided: Voided
    anew: BidPlaced | None
    state: State
    log: tuple[LogEntry, ...]


def void(terms: Terms, state: State, log: Sequence[LogEntry], bid_id: str, now_us: int) -> AfterVoid:
    """Strike a bid. ``log`` has every accepted bid of the item.

    Raises:
        StateConflict: the item is cancelled, or its end has come and it is not closed yet: whoever is next would be
            promoted and sold to.
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
    # Rows that go for other reasons than the price, which is not known yet.
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
    """The log with the marks that a void leaves."""
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
