"""The judge of a fault run, pure: what clients did and saw, against what Redis and PostgreSQL hold in the end.

A client knows one of four things of a request:

- ``ok``: it was told that its bid is accepted (201);
- ``refused``: it was told that the rules refuse it (200);
- ``declined``: it was told that nothing was changed (503);
- ``unknown``: anything else, such as a broken connection. Such a bid may have been accepted or not.

Times are seconds of one monotonic clock of the process that ran all the clients.
"""

from __future__ import annotations

import bisect
import itertools
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

Outcome = Literal["ok", "refused", "declined", "unknown"]

_EXAMPLES_MAX = 3


@dataclass(frozen=True, slots=True)
class Request:
    """One HTTP request of one client. A bid that was repeated has several, all with the same ``bid_id``.

    ``amount`` in minor units; ``seq`` as the answer told it, only where the outcome is ``ok``.
    """

    bid_id: str
    user_id: str
    amount: int
    invoked_s: float
    completed_s: float
    outcome: Outcome
    seq: int | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """An accepted bid in PostgreSQL."""

    epoch: int
    seq: int
    bid_id: str
    user_id: str
    amount: int


@dataclass(frozen=True, slots=True)
class Read:
    """One answer to a client that asked a gateway for the item. ``price`` in minor units."""

    epoch: int
    seq: int
    price: int
    invoked_s: float
    completed_s: float


@dataclass(frozen=True, slots=True)
class Frame:
    """A frame that carries the item's state; ``is_event`` for a single event, not a snapshot or a conflated state."""

    epoch: int
    seq: int
    price: int
    is_event: bool = True

    @property
    def version(self) -> tuple[int, int]:
        """Where the frame stands in the item's history."""
        return self.epoch, self.seq


@dataclass(frozen=True, slots=True)
class Viewer:
    """What one viewer was shown: the frames of each of its connections, in order.

    From the second connection on it came back with ``since``, so nothing may be shown to it twice.
    """

    name: str
    connections: Sequence[Sequence[Frame]]


@dataclass(frozen=True, slots=True)
class History:
    """Everything about one item whose bids had no hidden maxima and none of which was voided.

    Args:
        rows: its bids in PostgreSQL, in any order.
        other_seqs: the seqs of its events in PostgreSQL that are no bids.
        redis_price, redis_seq: the item's hash; None where Redis does not know the item.
        archived_price: PostgreSQL's row of the item.
        dead_letters: messages about the item that could not be stored as what they are.
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

    @property
    def acknowledged(self) -> int:
        """How many different bids were acknowledged."""
        return len(self._acknowledged_ids())

    @property
    def lost(self) -> int:
        """How many of them are not in PostgreSQL."""
        return len(self._acknowledged_ids() - {row.bid_id for row in self.rows})

    @property
    def doubled(self) -> int:
        """How many rows are there beyond one per bid."""
        return len(self.rows) - len({row.bid_id for row in self.rows})

    def _acknowledged_ids(self) -> set[str]:
        return {request.bid_id for request in self.requests if request.outcome == "ok"}


def violations(history: History) -> list[str]:
    """Every promise that the history breaks, in words; empty when it is sound."""
    rows = sorted(history.rows, key=lambda row: (row.epoch, row.seq))
    found = itertools.chain(
        _acknowledged_are_stored_once(history.requests, rows),
        _nothing_else_is_stored(history.requests, rows),
        _numbers_are_unique(rows),
        _numbers_have_no_gap(history, rows),
        _prices_rise(rows),
        _later_bids_were_higher(history.requests, rows),
        _reads_are_not_behind(history.requests, history.reads),
        _reads_show_what_was_decided(history.reads, rows),
        _one_price_everywhere(history, rows),
        *(_viewer_never_goes_back(viewer) for viewer in history.viewers),
    )
    return [f"{history.item_id}: {violation}" for violation in found]


def _acknowledged_are_stored_once(requests: Sequence[Request], rows: Sequence[Row]) -> Iterator[str]:
    stored: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        stored[row.bid_id].append(row)
    told: dict[str, set[int | None]] = defaultdict(set)
    lost, doubled, different = set(), set(), set()
    for request in requests:
        if request.outcome != "ok":
            continue
        told[request.bid_id].add(request.seq)
        found = stored[request.bid_id]
        if not found:
            lost.add(request.bid_id)
        elif len(found) > 1:
            doubled.add(request.bid_id)
        elif (found[0].seq, found[0].user_id, found[0].amount) != (request.seq, request.user_id, request.amount):
            different.add(request.bid_id)
    yield from _report("acknowledged bids are lost: not in PostgreSQL", lost)
    yield from _report("acknowledged bids are in PostgreSQL more than once", doubled)
    yield from _report("acknowledged bids are in PostgreSQL as something else than was told", different)
    yield from _report("bids were told two numbers", {bid_id for bid_id, seqs in told.items() if len(seqs) > 1})


def _nothing_else_is_stored(requests: Sequence[Request], rows: Sequence[Row]) -> Iterator[str]:
    """A stored bid was asked for, and no client was told that it was not taken."""
    outcomes: dict[str, set[Outcome]] = defaultdict(set)
    for request in requests:
        outcomes[request.bid_id].add(request.outcome)
    stored = {row.bid_id for row in rows}
    yield from _report("bids in PostgreSQL were placed by nobody", stored - outcomes.keys())
    refused = {bid_id for bid_id in stored if "refused" in outcomes[bid_id]}
    yield from _report("refused bids are in PostgreSQL", refused)
    declined = {bid_id for bid_id in stored if outcomes[bid_id] == {"declined"}}
    yield from _report("bids that changed nothing, by their answer, are in PostgreSQL", declined)
    both = {bid_id for bid_id, told in outcomes.items() if {"ok", "refused"} <= told}
    yield from _report("bids were both accepted and refused", both)


def _numbers_are_unique(rows: Sequence[Row]) -> Iterator[str]:
    yield from _report("seqs are given to more than one bid", _repeated(row.seq for row in rows))
    yield from _report("bid ids have more than one seq", _repeated(row.bid_id for row in rows))


def _numbers_have_no_gap(history: History, rows: Sequence[Row]) -> Iterator[str]:
    stored = {row.seq for row in rows} | set(history.other_seqs)
    last = history.redis_seq if history.redis_seq is not None else max(stored, default=0)
    yield from _report(f"events of 0..{last} are not in PostgreSQL", set(range(last + 1)) - stored)
    yield from _report("events in PostgreSQL are unknown to Redis", {seq for seq in stored if seq > last})
    if history.dead_letters:
        yield f"{history.dead_letters} messages are dead letters"


def _prices_rise(rows: Sequence[Row]) -> Iterator[str]:
    fallen = {later.seq for earlier, later in itertools.pairwise(rows) if later.amount <= earlier.amount}
    yield from _report("bids did not raise the price", fallen)


def _later_bids_were_higher(requests: Sequence[Request], rows: Sequence[Row]) -> Iterator[str]:
    """Real time: a bid that was sent after another was acknowledged at an equal or higher price was refused.

    A bid counts as accepted where PostgreSQL has it, whatever its client knows; and as sent when it was sent first.
    """
    accepted = {row.bid_id for row in rows} | {each.bid_id for each in requests if each.outcome == "ok"}
    sent: dict[str, float] = {}
    for request in requests:
        sent[request.bid_id] = min(request.invoked_s, sent.get(request.bid_id, request.invoked_s))
    acknowledgements = sorted(
        (request.completed_s, request.amount, request.bid_id) for request in requests if request.outcome == "ok"
    )
    amounts = {request.bid_id: request.amount for request in requests}
    highest, number, stale = -1, 0, set()
    for bid_id in sorted(accepted & sent.keys(), key=lambda each: sent[each]):
        while number < len(acknowledgements) and acknowledgements[number][0] < sent[bid_id]:
            highest = max(highest, acknowledgements[number][1])
            number += 1
        if amounts[bid_id] <= highest:
            stale.add(bid_id)
    yield from _report("bids were accepted after a higher or equal one was acknowledged", stale)


def _reads_are_not_behind(requests: Sequence[Request], reads: Sequence[Read]) -> Iterator[str]:
    """Real time: a read that began after a bid was acknowledged, or after another read was answered, shows no less."""
    known = sorted(
        [(each.completed_s, each.amount) for each in requests if each.outcome == "ok"]
        + [(each.completed_s, each.price) for each in reads]
    )
    highest, number, behind = -1, 0, set()
    for read in sorted(reads, key=lambda each: each.invoked_s):
        while number < len(known) and known[number][0] < read.invoked_s:
            highest = max(highest, known[number][1])
            number += 1
        if read.price < highest:
            behind.add(f"{read.price} where {highest} was known")
    yield from _report("reads were behind what had been answered", behind)


def _reads_show_what_was_decided(reads: Sequence[Read], rows: Sequence[Row]) -> Iterator[str]:
    """A price that was shown with a number is that of the last bid up to it; before the first one it is zero."""
    seqs = [row.seq for row in rows]
    prices = [0, *(row.amount for row in rows)]
    unknown = {read.seq for read in reads if read.price != prices[bisect.bisect_right(seqs, read.seq)]}
    yield from _report("reads showed what is not in PostgreSQL", unknown)


def _one_price_everywhere(history: History, rows: Sequence[Row]) -> Iterator[str]:
    prices: dict[str, int | None] = {
        "Redis": history.redis_price,
        "the highest row": max((row.amount for row in rows), default=0),
        "PostgreSQL's item": history.archived_price,
    }
    acknowledged = max((request.amount for request in history.requests if request.outcome == "ok"), default=0)
    if acknowledged > (history.redis_price or 0):
        prices["the highest acknowledged"] = acknowledged
    for viewer in history.viewers:
        shown = [frame for frames in viewer.connections for frame in frames]
        prices[viewer.name] = shown[-1].price if shown else None
    if len(set(prices.values())) != 1 or None in prices.values():
        yield "prices differ: " + ", ".join(f"{source} {price}" for source, price in prices.items())


def _viewer_never_goes_back(viewer: Viewer) -> Iterator[str]:
    for number, frames in enumerate(viewer.connections):
        for earlier, later in itertools.pairwise(frames):
            if later.version < earlier.version or later.price < earlier.price:
                yield f"{viewer.name} went back from {earlier.version} to {later.version} on connection {number}"
            elif later.is_event and later.seq > earlier.seq + 1:
                yield f"{viewer.name} was not shown what is between {earlier.version} and {later.version}"
    events = [frame.version for frames in viewer.connections for frame in frames if frame.is_event]
    yield from _report(f"events were shown to {viewer.name} twice", _repeated(events))


def _repeated(values: Iterable[object]) -> set[object]:
    seen: set[object] = set()
    return {value for value in values if value in seen or seen.add(value)}  # type: ignore[func-returns-value]


def _report(what: str, found: set[object] | set[str] | set[int]) -> Iterator[str]:
    if found:
        examples = sorted(map(str, found))
        more = ", …" if len(examples) > _EXAMPLES_MAX else ""
        yield f"{len(found)} {what} ({', '.join(examples[:_EXAMPLES_MAX])}{more})"
