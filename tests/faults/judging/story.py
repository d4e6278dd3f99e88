"""A history with every kind of bid and operation, which the judge accepts, and changes of it by what they change."""

from __future__ import annotations

from dataclasses import replace

from shared.domain.auction import Terms
from shared.domain.increments import Increment
from shared.domain.soft_close import SoftClose
from tests.faults.judging.changes import request
from tests.faults.judging.honest import SECOND_US, Honest
from tests.faults.rig.history import Frame, History, Operation, Request, violations


def story() -> History:
    """A reserve, hidden maxima, one of them raised, voids, a pause, an end that moves, a close; every kind of key."""
    soft_close = SoftClose(30 * SECOND_US, 60 * SECOND_US, "from_bid", 2)
    item = Honest(
        Terms(
            "lot",
            0,
            seller_id="sel",
            reserve_price=300,
            buy_now_price=5_000,
            increment=Increment("flat", 10),
            end_us=200 * SECOND_US,
            soft_close=soft_close,
        )
    )
    item.bid("a", "ann", 100)
    item.bid("low", "bob", 105)
    item.bid("b", "bob", maximum=400, key="header")
    item.bid("c", "cid", maximum=350, key="none")
    item.bid("raise", "bob", maximum=600, key="header")
    item.read()
    item.operate("void", "*3")
    item.operate("pause")
    item.bid("paused", "dee", 310)
    item.operate("resume")
    item.bid("d", "dee", 310, key="header")
    item.bid("own", "sel", 900)
    item.bid("not raised", "bob", maximum=500)
    item.bid("e", "eve", 700, key="none")
    item.read()
    item.now_s = (item.state.end_us or 0) / SECOND_US - 10
    item.bid("f", "fay", 800, 900)
    item.close()
    item.bid("late", "ann", 2_000)
    item.operate("void", "f")
    item.read()
    return item.history()


def bid(history: History, name: str, **fields: object) -> History:
    """The request about the bid of this name, changed."""
    (number,) = (at for at, each in enumerate(history.requests) if each.bid_id == name)
    return request(history, number, **fields)


def told(history: History, name: str, **fields: object) -> History:
    """What the client of this bid was told, changed."""
    (answer,) = (each.told for each in history.requests if each.bid_id == name)
    assert answer is not None
    return bid(history, name, told=replace(answer, **fields))  # type: ignore[arg-type]


def more(history: History, request: Request) -> History:
    return replace(history, requests=[*history.requests, request])


def moved(history: History, name: str, to_s: float) -> History:
    """The request about the bid of this name, sent and answered at another time."""
    return bid(history, name, invoked_s=to_s, completed_s=to_s + 0.1)


def body(history: History, kind: str, **fields: object) -> History:
    """The last event of this type, with other fields."""
    at = max(at for at, event in enumerate(history.events) if event.type == kind)
    events = list(history.events)
    events[at] = replace(events[at], body={**events[at].body, **fields})
    return replace(history, events=events)


def row(history: History, seq: int, /, **fields: object) -> History:
    return replace(history, rows=[replace(r, **fields) if r.seq == seq else r for r in history.rows])  # type: ignore[arg-type]


def fact(history: History, at: int, **fields: object) -> History:
    facts = list(history.sealed)
    facts[at] = replace(facts[at], **fields)  # type: ignore[arg-type]
    return replace(history, sealed=facts)


def redis(history: History, **fields: object) -> History:
    assert history.redis_state is not None
    return replace(history, redis_state=replace(history.redis_state, **fields))  # type: ignore[arg-type]


def operation(history: History, kind: str, **fields: object) -> History:
    operations = list(history.operations or ())
    at = next(at for at, each in enumerate(operations) if each.kind == kind)
    operations[at] = replace(operations[at], **fields)  # type: ignore[arg-type]
    return replace(history, operations=operations)


def operations(history: History, *more: Operation) -> History:
    return replace(history, operations=[*(history.operations or ()), *more])


def conflict(kind: str, at_s: float, bid_id: str | None = None) -> Operation:
    code = "STATE_CONFLICT" if bid_id is None else "BID_NOT_FOUND"
    return Operation(kind, "in vain", at_s, at_s + 0.1, "refused", code, bid_id)


def events_at(history: History, kind: str, seq: int) -> History:
    """Events of this type, at another place."""
    return replace(history, events=[replace(e, seq=seq) if e.type == kind else e for e in history.events])


def events(history: History, kind: str, **fields: object) -> History:
    """All events of this type, changed."""
    changed = [replace(e, **fields) if e.type == kind else e for e in history.events]  # type: ignore[arg-type]
    return replace(history, events=changed)


def late_void(history: History) -> History:
    """The void of the open item, after its end."""
    late_us = 999 * SECOND_US
    first = next(event for event in history.events if event.type == "voided")
    return replace(history, events=[replace(e, at_us=late_us) if e is first else e for e in history.events])


def recounted(history: History) -> list[Frame]:
    """What the viewer who stayed was shown, with another number of bids."""
    frames = history.viewers[0].connections[0]
    return [replace(each, public=each.public and each.public._replace(bid_count=99)) for each in frames]


def refusal(name: str, code: str, at_s: float) -> Request:
    """A bid of Dee's that was refused at that time."""
    return Request(name, "dee", 310, at_s, at_s + 0.1, "refused", code=code)


def told_again(history: History, name: str, **fields: object) -> History:
    """The bid of this name was repeated at last, and its client was told something else."""
    (first,) = (each for each in history.requests if each.bid_id == name)
    assert first.told is not None
    answer = replace(first.told, **fields)  # type: ignore[arg-type]
    return more(history, replace(first, invoked_s=300.0, completed_s=300.1, told=answer))


def before_the_voids(history: History) -> History:
    """The same up to the close: Redis still has a leader with a hidden maximum."""
    last = next(
        place for place, each in enumerate(history.replay.decisions) if each.event and each.event.type == "closed"
    )
    state = history.replay.states[last]
    short = replace(
        history,
        rows=[replace(each, is_voided=each.is_voided and each.bid_id != "f") for each in history.rows],
        events=[event for event in history.events if event.seq <= state.seq],
        other_seqs=[seq for seq in history.other_seqs if seq <= state.seq],
        requests=[each for each in history.requests if each.bid_id != "late"],
        operations=(history.operations or [])[:-1],
        reads=history.reads[:-1],
        redis_price=state.price,
        redis_seq=state.seq,
        archived_price=state.price,
        redis_state=state,
        archived=None,
        viewers=[],
        listed=None,
    )
    assert violations(short) == []
    return short


ECHO = Request("echo", "cid", 9_000, 300.0, 300.1, "ok", 30, is_misuse=True)
GHOST_OPERATION = Operation("pause", "nobody", 400.0, 400.1, "ok")
