"""What PostgreSQL and Redis hold in the end, against what clients were told."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator, Sequence

from tests.faults.judging.ledger import KEPT_REFUSALS, Ledger
from tests.faults.judging.records import Outcome, Records, Row, public_of
from tests.faults.judging.replay import Replay
from tests.faults.judging.wording import repeated, report


def stored_violations(records: Records, rows: Sequence[Row], replay: Replay, ledger: Ledger) -> Iterator[str]:
    """Every acknowledged bid is there once, nothing else is, and all have the same state. ``rows`` in order."""
    yield from _acknowledged_are_stored_once(rows, replay, ledger)
    yield from _nothing_else_is_stored(ledger)
    yield from _requests_that_are_wrong(records)
    yield from _numbers_are_unique(rows)
    yield from _numbers_have_no_gap(records, rows)
    yield from _prices_rise(records, rows)
    yield from replay.complaints
    yield from _one_state_everywhere(records, replay)
    yield from _struck_rows(records, rows)
    yield from _operations_are_stored_once(records)
    yield from _history_lists_all(records, rows)


def _acknowledged_are_stored_once(rows: Sequence[Row], replay: Replay, ledger: Ledger) -> Iterator[str]:
    stored: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        stored[row.bid_id].append(row)
    lost, doubled, different, two_numbers = set(), set(), set(), set()
    for sent in ledger.acknowledged:
        if len({each.seq for each in sent.oks}) > 1 or len(sent.told_ids) > 1:
            two_numbers.add(sent.name)
        if sent.position is None:
            lost.add(sent.name)
            continue
        decision = replay.decisions[sent.position - 1]
        assert decision.bid is not None
        if len(stored[decision.bid.bid_id]) > 1:
            doubled.add(sent.name)
        what = (decision.bid.user_id, decision.bid.amount, decision.bid.maximum)
        ids = sent.told_ids or {decision.bid.bid_id}
        if what != sent.content or any(each.seq != decision.seq for each in sent.oks) or ids != {decision.bid.bid_id}:
            different.add(sent.name)
    yield from report("acknowledged bids are lost: not in PostgreSQL", lost)
    yield from report("acknowledged bids are in PostgreSQL more than once", doubled)
    yield from report("acknowledged bids are in PostgreSQL as something else than was told", different)
    yield from report("bids were told two numbers", two_numbers)


def _nothing_else_is_stored(ledger: Ledger) -> Iterator[str]:
    """A stored bid was asked for, and no client was told that it was not taken."""
    ghosts = [each.bid.bid_id for each in ledger.unasked if each.bid is not None]
    yield from report("bids in PostgreSQL were placed by nobody", ghosts)
    refused, declined, both = set(), set(), set()
    for sent in ledger.sent.values():
        outcomes: set[Outcome] = {each.outcome for each in sent.requests if not each.is_lookup}
        kept = any(each.outcome == "refused" and each.code in KEPT_REFUSALS for each in sent.requests)
        if sent.position is not None:
            if kept or (outcomes & {"refused"} and not sent.effects):
                refused.add(sent.name)
            elif not sent.effects:
                declined.add(sent.name)
        if kept and sent.oks:
            both.add(sent.name)
    yield from report("refused bids are in PostgreSQL", refused)
    yield from report("bids that changed nothing, by their answer, are in PostgreSQL", declined)
    yield from report("bids were both accepted and refused", both)


def _requests_that_are_wrong(records: Records) -> Iterator[str]:
    """A key names one bid, and an id that the platform gave is nobody's to send; all other requests are well formed."""
    taken = {each.bid_id for each in records.requests if each.is_misuse and each.outcome in ("ok", "refused")}
    yield from report("bids were decided although their key or id is that of another bid", taken)
    rejected = {each.bid_id for each in records.requests if not each.is_misuse and each.outcome == "rejected"}
    yield from report("bids that nothing is wrong with were rejected as malformed or as another's", rejected)


def _numbers_are_unique(rows: Sequence[Row]) -> Iterator[str]:
    yield from report("seqs are given to more than one bid", repeated(row.seq for row in rows))
    yield from report("bid ids have more than one seq", repeated(row.bid_id for row in rows))


def _numbers_have_no_gap(records: Records, rows: Sequence[Row]) -> Iterator[str]:
    stored = {row.seq for row in rows} | set(records.other_seqs)
    last = records.redis_seq if records.redis_seq is not None else max(stored, default=0)
    yield from report(f"events of 0..{last} are not in PostgreSQL", set(range(last + 1)) - stored)
    yield from report("events in PostgreSQL are unknown to Redis", {seq for seq in stored if seq > last})
    if records.dead_letters:
        yield f"{records.dead_letters} messages are dead letters"


def _prices_rise(records: Records, rows: Sequence[Row]) -> Iterator[str]:
    """Prices rise from one bid to the next, unless a bid was struck between them."""
    voids = [event.seq for event in records.events if event.type == "voided"]
    fallen = {
        later.seq
        for earlier, later in itertools.pairwise(rows)
        if later.amount <= earlier.amount and not any(earlier.seq < seq < later.seq for seq in voids)
    }
    yield from report("bids did not raise the price", fallen)


def _one_state_everywhere(records: Records, replay: Replay) -> Iterator[str]:
    prices: dict[str, int | None] = {
        "Redis": records.redis_price,
        "the replay": replay.states[-1].price if replay.is_whole else records.redis_price,
        "PostgreSQL's item": records.archived_price,
    }
    if not any(event.type == "voided" for event in records.events):
        start = 0 if records.terms is None else records.terms.start_price
        prices["the highest row"] = max((row.amount for row in records.rows), default=start)
    for viewer in records.viewers:
        shown = [frame for frames in viewer.connections for frame in frames if not frame.is_resumed]
        prices[viewer.name] = shown[-1].price if shown else None
    if len(set(prices.values())) != 1 or None in prices.values():
        yield "prices differ: " + ", ".join(f"{source} {price}" for source, price in prices.items())
    if not replay.is_whole:
        return
    made = replay.states[-1]
    public = public_of(replay.terms, made)
    if records.archived is not None and records.archived != public:
        yield f"PostgreSQL's item is {records.archived}, and its bids make it {public}"
    held = records.redis_state
    if held is None:
        return
    if public_of(replay.terms, held) != public or held.extensions != made.extensions:
        yield f"Redis has {held}, and its bids make it {made}"
    elif not made.status.is_final and (held.leader_max, held.runner_up) != (made.leader_max, made.runner_up):
        yield (
            f"hidden maxima differ: Redis has {held.leader_max} over {held.runner_up}, "
            f"and the bids make it {made.leader_max} over {made.runner_up}"
        )
    elif held.epoch < made.epoch:
        yield f"Redis is at epoch {held.epoch}, and PostgreSQL has bids of epoch {made.epoch}"


def _struck_rows(records: Records, rows: Sequence[Row]) -> Iterator[str]:
    """A bid is marked as struck where an event strikes it, and nowhere else. Automatic bids go with maxima."""
    if not records.events:
        return
    struck = {event.body.get("bid_id") for event in records.events if event.type == "voided"}
    wrong = [row.bid_id for row in rows if row.kind != "proxy" and row.is_voided != (row.bid_id in struck)]
    yield from report("bids are marked as struck and are not, or are struck and not marked", wrong)


def _operations_are_stored_once(records: Records) -> Iterator[str]:
    """What an operator was told to be done is in the log once; what was refused is not; nothing else is."""
    if records.operations is None:
        return
    stored: dict[str, int] = defaultdict(int)
    for event in records.events:
        if event.type in ("paused", "resumed", "end_moved", "cancelled", "voided"):
            stored[str(event.body.get("reason"))] += 1
    asked = {operation.reason for operation in records.operations}
    lost = [each.reason for each in records.operations if each.outcome == "ok" and not stored[each.reason]]
    refused = [each.reason for each in records.operations if each.outcome == "refused" and stored[each.reason]]
    yield from report("acknowledged operations are lost: not in PostgreSQL", lost)
    yield from report("refused operations are in PostgreSQL", refused)
    yield from report("operations are in PostgreSQL more than once", [each for each in stored if stored[each] > 1])
    yield from report("operations in PostgreSQL were asked for by nobody", stored.keys() - asked)


def _history_lists_all(records: Records, rows: Sequence[Row]) -> Iterator[str]:
    """The pages of the history, one after the other, are the bids of PostgreSQL, newest first."""
    if records.listed is None:
        return
    wanted = [(row.seq, row.bid_id, row.amount, row.kind, row.is_voided) for row in reversed(rows)]
    told = [(each.seq, each.bid_id, each.amount, each.kind, each.is_voided) for each in records.listed]
    yield from report("bids are not on the history page, or otherwise", set(wanted) - set(told))
    yield from report("bids are on the history page only", set(told) - set(wanted))
    if len(told) != len(set(told)) or [each[0] for each in told] != sorted((each[0] for each in told), reverse=True):
        yield "the history page lists bids twice or out of order"
