"""The proof, as a pure comparison: what clients, Redis, JetStream and PostgreSQL each say about one item must
be one story.

The fetching is in ``verify``; everything here is deterministic over plain data, so that it is itself tested
with stories that it must reject.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from typing_extensions import override

from shared.domain.money import format_amount

_EXAMPLES_MAX = 3
_REASONS_SHOWN = 3


@dataclass(frozen=True, slots=True, order=True)
class Bid:
    """An accepted bid as one source knows it; ``amount`` is the visible price that it set, in minor units.

    ``kind`` is ``bid``, ``proxy`` (placed by the platform for the leader, so no client was told of it) or
    ``buy_now``.
    """

    epoch: int
    seq: int
    bid_id: str
    user_id: str
    amount: int
    kind: str = "bid"


@dataclass(frozen=True, slots=True)
class AcceptedBid:
    """A bid that a client was told was accepted; ``amount`` in minor units."""

    seq: int
    bid_id: str
    user_id: str
    amount: int


@dataclass(frozen=True, slots=True)
class ClientView:
    """What all clients of one item know together.

    Args:
        accepted: bids answered with 201, plus unknown ones that ``bids/by-key`` resolved to accepted.
        refused: bids answered with 200 and ``success: false``.
        failures: answers that were neither.
        reasons: how many failures had which reason.
        unresolved: ids of bids whose outcome is still not known.
    """

    accepted: Sequence[AcceptedBid]
    refused: int = 0
    failures: int = 0
    unresolved: Sequence[str] = ()
    reasons: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class PriceState:
    """The item's own state, in Redis or in PostgreSQL's ``items``; ``price`` in minor units (the start price
    before any bid).
    """

    price: int
    seq: int
    epoch: int
    bid_count: int


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything known about one item after the load ended.

    Args:
        redis: the item's hash, None where there is none.
        archived_item: the row of the item in PostgreSQL, None where there is none.
        rows: its bids in PostgreSQL, in any order.
        events: its bid events in JetStream in the order of the stream, deliveries of the same event twice
            included.
        versions: ``(epoch, seq)`` of every event of any type in JetStream, in the order of the stream.
        archived_versions: the same of PostgreSQL, which keeps bids and other events apart; in any order.
        dead_letters: events of the item that the archive could not store as what they say they are.
        viewer_prices: the price that each viewer was shown last, by a name for the viewer; None where nobody
            watched.
        exponent: decimals of the currency, for the statements.
        redelivery_allowed: whether the same event may stand in the stream more than once, as after a relay
            rewound.
    """

    item_id: str
    clients: ClientView
    redis: PriceState | None
    archived_item: PriceState | None
    rows: Sequence[Bid]
    events: Sequence[Bid]
    versions: Sequence[tuple[int, int]]
    archived_versions: Sequence[tuple[int, int]] = ()
    dead_letters: int = 0
    viewer_prices: Mapping[str, int] | None = None
    exponent: int = 2
    redelivery_allowed: bool = False


@dataclass(frozen=True, slots=True)
class Check:
    """One named statement and whether it holds."""

    name: str
    ok: bool
    statement: str


@dataclass(frozen=True, slots=True)
class Verification:
    """The outcome for one item; ``counts`` are for reports."""

    item_id: str
    checks: tuple[Check, ...]
    counts: Mapping[str, int] = field(default_factory=dict)

    @property
    def ok(self) -> bool:
        """Whether every check holds."""
        return all(check.ok for check in self.checks)

    @property
    def failed(self) -> tuple[Check, ...]:
        """The checks that do not hold."""
        return tuple(check for check in self.checks if not check.ok)

    @override
    def __str__(self) -> str:
        if self.ok:
            return f"{self.item_id}: all {len(self.checks)} checks hold"
        return f"{self.item_id}: " + "; ".join(f"{check.name}: {check.statement}" for check in self.failed)


def compare(evidence: Evidence) -> Verification:
    """Judge one item whose bids were all placed by these clients and none of which was voided.

    Never raises: whatever is missing is a check that does not hold.
    """
    rows = sorted(evidence.rows)
    events = sorted(set(evidence.events))
    checks = [
        _no_failures(evidence.clients),
        _outcomes_known(evidence.clients),
        _prices_equal(evidence, rows, events),
        _counts_equal(evidence, rows, events),
        _same_bids("clients_in_postgres", "PostgreSQL", evidence.clients.accepted, rows),
        _same_bids("clients_in_jetstream", "JetStream", evidence.clients.accepted, events),
        _streams_agree(rows, events),
        _events_once(evidence),
        _rows_once(rows),
        _seq_gapless("seq_gapless_in_jetstream", "JetStream", evidence, evidence.versions),
        _seq_gapless("seq_gapless_in_postgres", "PostgreSQL", evidence, evidence.archived_versions),
        _prices_rise("prices_rise_in_postgres", rows, evidence.exponent),
        _prices_rise("prices_rise_in_jetstream", events, evidence.exponent),
        _archived(evidence),
        _nothing_dead(evidence),
    ]
    if evidence.viewer_prices is not None:
        checks.append(_viewers_up_to_date(evidence, evidence.viewer_prices))
    counts = {
        "accepted": len(evidence.clients.accepted),
        "refused": evidence.clients.refused,
        "failures": evidence.clients.failures,
        "unresolved": len(evidence.clients.unresolved),
        "rows": len(rows),
        "events": len(events),
        "seq": evidence.redis.seq if evidence.redis else 0,
    }
    return Verification(evidence.item_id, tuple(checks), counts)


def _no_failures(clients: ClientView) -> Check:
    count = clients.failures
    most = sorted(clients.reasons.items(), key=lambda reason: -reason[1])[:_REASONS_SHOWN]
    why = ": " + ", ".join(f"{count} {reason}" for reason, count in most) if most else ""
    return Check("no_failures", count == 0, f"{count} answers were neither 201 nor a refusal{why}")


def _outcomes_known(clients: ClientView) -> Check:
    unresolved = clients.unresolved
    return Check(
        "outcomes_known",
        not unresolved,
        f"{len(unresolved)} bids with an unknown outcome{_examples(unresolved)}",
    )


def _prices_equal(evidence: Evidence, rows: Sequence[Bid], events: Sequence[Bid]) -> Check:
    """Promise 4: the price in Redis = the highest accepted bid = PostgreSQL (its bids and its item) = the
    last event.
    """
    prices: dict[str, int | None] = {"Redis": evidence.redis.price if evidence.redis else None}
    if rows or events or evidence.clients.accepted:
        # Where the platform bids for a leader, its automatic bid may top everything that a client was told.
        if not any(bid.kind == "proxy" for bid in (*rows, *events)):
            prices["clients"] = max((bid.amount for bid in evidence.clients.accepted), default=None)
        prices["PostgreSQL bids"] = max((bid.amount for bid in rows), default=None)
        prices["JetStream"] = max((bid.amount for bid in events), default=None)
    prices["PostgreSQL item"] = evidence.archived_item.price if evidence.archived_item else None
    ok = len(set(prices.values())) == 1 and None not in prices.values()
    shown = ", ".join(f"{source} {_money(price, evidence.exponent)}" for source, price in prices.items())
    return Check("highest_price_equal", ok, shown)


def _counts_equal(evidence: Evidence, rows: Sequence[Bid], events: Sequence[Bid]) -> Check:
    """All sources have the same number of bids. Automatic bids are placed by no client and not counted."""
    counts = {
        "clients": len(evidence.clients.accepted),
        "Redis": evidence.redis.bid_count if evidence.redis else None,
        "PostgreSQL": sum(bid.kind != "proxy" for bid in rows),
        "JetStream": sum(bid.kind != "proxy" for bid in events),
    }
    shown = ", ".join(f"{source} {count}" for source, count in counts.items())
    return Check("counts_equal", len(set(counts.values())) == 1, f"accepted bids: {shown}")


def _same_bids(name: str, source: str, accepted: Sequence[AcceptedBid], stored: Sequence[Bid]) -> Check:
    """The same bids, not only as many: id, bidder, amount and seq of each."""
    told = Counter((bid.seq, bid.bid_id, bid.user_id, bid.amount) for bid in accepted)
    kept = Counter((bid.seq, bid.bid_id, bid.user_id, bid.amount) for bid in stored if bid.kind != "proxy")
    missing = sorted((told - kept).elements())
    surplus = sorted((kept - told).elements())
    return Check(
        name,
        not missing and not surplus,
        f"{len(missing)} bids acknowledged but not in {source} as such{_bid_examples(missing)}, "
        f"{len(surplus)} there but not acknowledged{_bid_examples(surplus)}",
    )


def _streams_agree(rows: Sequence[Bid], events: Sequence[Bid]) -> Check:
    """PostgreSQL holds exactly the bid events, the automatic ones included."""
    only_rows, only_events = sorted(set(rows) - set(events)), sorted(set(events) - set(rows))
    return Check(
        "postgres_equals_jetstream",
        not only_rows and not only_events,
        f"{len(only_rows)} bids only in PostgreSQL{_examples(_name(bid) for bid in only_rows)}, "
        f"{len(only_events)} only in JetStream{_examples(_name(bid) for bid in only_events)}",
    )


def _events_once(evidence: Evidence) -> Check:
    """One content per ``(epoch, seq)`` and one seq per bid id; the same message twice only where that is
    allowed.
    """
    distinct = set(evidence.events)
    conflicts = _repeated((bid.epoch, bid.seq) for bid in distinct)
    conflicts += _repeated(bid.bid_id for bid in distinct if bid.kind != "proxy")
    repeats = len(evidence.versions) - len(set(evidence.versions))
    return Check(
        "events_once",
        not conflicts and (repeats == 0 or evidence.redelivery_allowed),
        f"{repeats} events stand in the stream more than once, "
        f"{len(conflicts)} seqs or bid ids have two contents{_examples(conflicts)}",
    )


def _rows_once(rows: Sequence[Bid]) -> Check:
    twice = _repeated((bid.epoch, bid.seq) for bid in rows)
    twice += _repeated(bid.bid_id for bid in rows if bid.kind != "proxy")
    return Check("rows_once", not twice, f"{len(twice)} seqs or bid ids have two rows{_examples(twice)}")


def _seq_gapless(name: str, source: str, evidence: Evidence, versions: Sequence[tuple[int, int]]) -> Check:
    """Events of all types are numbered 0 (the creation) to n without a gap, n being the seq of Redis."""
    numbers = {seq for _, seq in versions}
    last = evidence.redis.seq if evidence.redis else max(numbers, default=0)
    missing = sorted(set(range(last + 1)) - numbers)
    surplus = sorted(number for number in numbers if number > last)
    return Check(
        name,
        not missing and not surplus,
        f"events 0..{last} in {source}: {len(missing)} missing{_examples(missing)}, "
        f"{len(surplus)} beyond it{_examples(surplus)}",
    )


def _nothing_dead(evidence: Evidence) -> Check:
    count = evidence.dead_letters
    return Check("no_dead_letters", count == 0, f"{count} events could not be archived as what they are")


def _prices_rise(name: str, bids: Sequence[Bid], exponent: int) -> Check:
    """Strictly rising with ``(epoch, seq)``; ``bids`` are sorted by it."""
    falls = [
        f"seq {later.seq}: {_money(earlier.amount, exponent)} to {_money(later.amount, exponent)}"
        for earlier, later in itertools.pairwise(bids)
        if later.amount <= earlier.amount
    ]
    statement = f"{len(falls)} of {len(bids)} bids did not raise the price{_examples(falls)}"
    return Check(name, not falls, statement)


def _archived(evidence: Evidence) -> Check:
    """The archived item is as far as Redis."""
    redis, archived = evidence.redis, evidence.archived_item
    ok = redis is not None and archived is not None and _version(redis) == _version(archived)
    return Check("archived_up_to_date", ok, f"Redis at {_version(redis)}, PostgreSQL at {_version(archived)}")


def _viewers_up_to_date(evidence: Evidence, viewer_prices: Mapping[str, int]) -> Check:
    price = evidence.redis.price if evidence.redis else None
    stale = sorted(viewer for viewer, shown in viewer_prices.items() if shown != price)
    return Check(
        "viewers_up_to_date",
        not stale,
        f"{len(stale)} of {len(viewer_prices)} viewers were last shown another price than "
        f"{_money(price, evidence.exponent)}{_examples(stale)}",
    )


def _repeated(values: Iterable[object]) -> list[str]:
    return sorted(str(value) for value, count in Counter(values).items() if count > 1)


def _examples(values: Iterable[object]) -> str:
    """A few of them in brackets, empty where there are none."""
    shown = [str(value) for value in values]
    if not shown:
        return ""
    more = ", …" if len(shown) > _EXAMPLES_MAX else ""
    return f" ({', '.join(shown[:_EXAMPLES_MAX])}{more})"


def _bid_examples(bids: Iterable[tuple[int, str, str, int]]) -> str:
    return _examples(f"seq {seq} {bid_id}" for seq, bid_id, _, _ in bids)


def _name(bid: Bid) -> str:
    return f"seq {bid.seq} {bid.bid_id}"


def _money(price: int | None, exponent: int) -> str:
    return "nothing" if price is None else format_amount(price, exponent)


def _version(state: PriceState | None) -> str:
    return "nothing" if state is None else f"{state.epoch}:{state.seq}"
