"""What a run has written down of one item: requests, rows, frames. No decision is made here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from shared.domain.auction import State, Terms, minimum_bid

Outcome = Literal["ok", "refused", "declined", "unknown", "rejected", "absent"]
KeyKind = Literal["bid_id", "header", "none"]


class Public(NamedTuple):
    """What everybody may see of an item's state. Amounts in minor units, the end in microseconds since 1970."""

    price: int
    leader: str | None
    bid_count: int
    min_next_bid: int
    status: str
    reserve_met: bool
    end_us: int | None


def public_of(terms: Terms, state: State) -> Public:
    """The public part of a state."""
    minimum = minimum_bid(terms, state)
    return Public(
        state.price, state.leader, state.bid_count, minimum, state.status.value, state.reserve_met, state.end_us
    )


@dataclass(frozen=True, slots=True)
class Answer:
    """What an answer says beside its outcome, in minor units. ``bid_id``: the id that the platform gave the bid."""

    current_bid: int
    min_next_bid: int
    leads: bool
    reserve_met: bool
    bid_id: str | None = None
    your_bid: int | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request of one client. A bid that was repeated has several, all with the same ``bid_id``.

    Attributes:
        bid_id: the client's own name for its bid: what it sent as ``bid_id`` or as the header, by ``key``. A bid
            without a key has one too, which nobody else knows.
        amount, max_amount: in minor units, as sent; at least one of them.
        seq: as the answer told it, only where the outcome is ``ok``.
        code: of a refusal or an error.
        is_lookup: it asked ``by-key`` what became of the bid.
        is_misuse: it can only be wrong: another bid's key, or the id that the platform gave to another bid.
    """

    bid_id: str
    user_id: str
    amount: int | None
    invoked_s: float
    completed_s: float
    outcome: Outcome
    seq: int | None = None
    max_amount: int | None = None
    key: KeyKind = "bid_id"
    code: str | None = None
    told: Answer | None = None
    is_lookup: bool = False
    is_misuse: bool = False


@dataclass(frozen=True, slots=True)
class Operation:
    """One request of an operator. ``reason`` is its own: the event in the log carries it.

    ``kind``: ``pause``, ``resume``, ``extend``, ``cancel`` or ``void``; only a void has a ``bid_id``.
    """

    kind: str
    reason: str
    invoked_s: float
    completed_s: float
    outcome: Outcome
    code: str | None = None
    bid_id: str | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """An accepted bid in PostgreSQL. ``leader`` led right after it where that was not its bidder."""

    epoch: int
    seq: int
    bid_id: str
    user_id: str
    amount: int
    kind: str = "bid"
    previous: int | None = None
    leader: str | None = None
    is_voided: bool = False
    at_us: int = 0


@dataclass(frozen=True, slots=True)
class LogEvent:
    """An event in PostgreSQL that is no bid; ``body`` as it was on the wire."""

    epoch: int
    seq: int
    type: str
    at_us: int = 0
    body: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Sealed:
    """An accepted bid in the table ``sealed``: what it asked for. ``is_raise``: a maximum raised without an event."""

    epoch: int
    n: int
    at: int
    seq: int
    bid_id: str
    user_id: str
    amount: int | None
    max_amount: int | None
    key: str | None
    is_raise: bool
    at_us: int = 0


@dataclass(frozen=True, slots=True)
class Read:
    """One answer to a client that asked a gateway for the item. ``price`` in minor units."""

    epoch: int
    seq: int
    price: int
    invoked_s: float
    completed_s: float
    public: Public | None = None


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame that carries the item's state; ``is_event`` for a single event, not a snapshot or a conflated state.

    A frame of type ``resumed`` has no price: it says that exactly ``replayed`` events follow ``since``, up to its own
    version. ``recovered`` as in a snapshot: False says that events before it are not shown.
    """

    epoch: int
    seq: int
    price: int | None
    is_event: bool = True
    type: str = ""
    recovered: bool | None = None
    replayed: int = 0
    since: tuple[int, int] | None = None
    public: Public | None = None

    @property
    def version(self) -> tuple[int, int]:
        """Where the frame stands in the item's history."""
        return self.epoch, self.seq

    @property
    def is_resumed(self) -> bool:
        """Whether it only says what follows. The event of an operator who lets an item go on is of that type too."""
        return self.type == "resumed" and self.price is None


@dataclass(frozen=True, slots=True)
class Viewer:
    """What one viewer was shown: the frames of each of its connections, in order.

    It asks for every event (``feed=full``). From the second connection on it came back with ``since``, so nothing may
    be shown to it twice.
    """

    name: str
    connections: Sequence[Sequence[Frame]]


@dataclass(frozen=True, slots=True)
class Listed:
    """A bid on the history page."""

    seq: int
    bid_id: str
    amount: int
    kind: str
    is_voided: bool


@dataclass(frozen=True)
class Records:
    """Everything about one item.

    Args:
        rows: its bids in PostgreSQL, in any order.
        other_seqs: the seqs of its events in PostgreSQL that are no bids.
        redis_price, redis_seq: the item's hash; None where Redis does not know the item.
        archived_price: PostgreSQL's row of the item.
        dead_letters: messages about the item that could not be stored as what they are.
        terms: None for an item that was opened by default.
        events: the events of ``other_seqs``; empty where their content is not known.
        sealed: its accepted bids in the table ``sealed``.
        redis_state, archived: all of the hash, and the public state in PostgreSQL; None where not known.
        operations: every request of an operator; None where they were not written down.
        listed: all pages of its history; None where they were not read.
        wall_offset_s: what must be added to the clock of the requests for that of Redis; None where that clock moved.
        lost_s: when Redis lost what it had. A read or a refusal tells of a state at that moment, and what it tells of
            may be lost by right, where it was not acknowledged.
    """

    item_id: str
    requests: Sequence[Request]
    rows: Sequence[Row]
    other_seqs: Sequence[int]
    redis_price: int | None
    redis_seq: int | None
    archived_price: int | None
    dead_letters: int = 0
    viewers: Sequence[Viewer] = field(default_factory=tuple)
    reads: Sequence[Read] = field(default_factory=tuple)
    terms: Terms | None = None
    events: Sequence[LogEvent] = field(default_factory=tuple)
    sealed: Sequence[Sealed] = field(default_factory=tuple)
    redis_state: State | None = None
    archived: Public | None = None
    operations: Sequence[Operation] | None = None
    listed: Sequence[Listed] | None = None
    wall_offset_s: float | None = None
    lost_s: Sequence[float] = ()
