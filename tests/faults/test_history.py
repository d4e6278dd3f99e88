"""The judge must reject every history that breaks a promise, each made from a sound one by one change."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from tests.faults.history import Frame, History, Read, Request, Row, Viewer, violations

Mutation = Callable[[History], History]


def sound() -> History:
    """Three accepted bids, one of them after a repeat, a refused one, one declined, and two of unknown outcome."""
    requests = [
        Request("a", "ann", 100, 0.0, 1.0, "ok", 1),
        Request("low", "bob", 90, 1.1, 1.2, "refused"),
        Request("b", "bob", 200, 1.1, 1.5, "unknown"),
        Request("b", "bob", 200, 1.6, 1.7, "ok", 2),
        Request("shed", "cid", 250, 1.8, 1.9, "declined"),
        Request("never", "dee", 255, 1.8, 1.9, "unknown"),
        Request("silent", "eve", 260, 1.9, 2.0, "unknown"),
        Request("c", "cid", 300, 2.0, 2.5, "ok", 4),
    ]
    rows = [
        Row(1, 2, "b", "bob", 200),
        Row(1, 1, "a", "ann", 100),
        Row(1, 3, "silent", "eve", 260),
        Row(1, 4, "c", "cid", 300),
    ]
    came_back = Viewer("v1", [[Frame(1, 0, 0, False), Frame(1, 1, 100)], [Frame(1, 2, 200), Frame(1, 4, 300, False)]])
    stayed = Viewer("v2", [[Frame(1, 0, 0, False), *(Frame(1, row.seq, row.amount) for row in sorted(rows, key=str))]])
    # The second one began before "b" was acknowledged, and may show the price before it.
    reads = [Read(1, 0, 0, 0.1, 0.2), Read(1, 1, 100, 1.6, 1.8), Read(1, 3, 260, 2.1, 2.2), Read(1, 4, 300, 2.6, 2.7)]
    return History("lot", requests, rows, [0], 300, 4, 300, 0, [came_back, stayed], reads)


def test_a_sound_history_is_accepted() -> None:
    assert violations(sound()) == []
    assert (sound().acknowledged, sound().lost, sound().doubled) == (3, 0, 0)


def test_what_is_lost_and_doubled_is_counted() -> None:
    assert rows(sound(), lambda each: each.pop()).lost == 1
    assert rows(sound(), lambda each: each.append(each[0])).doubled == 1


def rows(history: History, change: Callable[[list[Row]], object]) -> History:
    changed = list(history.rows)
    change(changed)
    return replace(history, rows=changed)


def request(history: History, number: int, **fields: object) -> History:
    changed = list(history.requests)
    changed[number] = replace(changed[number], **fields)  # type: ignore[arg-type]
    return replace(history, requests=changed)


def viewer(history: History, *connections: list[Frame]) -> History:
    return replace(history, viewers=[Viewer("v", connections)])


def read(history: History, number: int, **fields: object) -> History:
    changed = list(history.reads)
    changed[number] = replace(changed[number], **fields)  # type: ignore[arg-type]
    return replace(history, reads=changed)


END = Frame(1, 4, 300, False)

MUTATIONS: list[tuple[str, Mutation, str]] = [
    ("an acknowledged bid is lost", lambda h: rows(h, lambda r: r.pop(1)), "are lost"),
    ("the last acknowledged bid is lost", lambda h: rows(h, lambda r: r.pop()), "are lost"),
    ("a bid is stored twice", lambda h: rows(h, lambda r: r.append(Row(1, 5, "c", "cid", 310))), "more than once"),
    ("a seq is used twice", lambda h: rows(h, lambda r: r.append(Row(2, 3, "never", "dee", 400))), "more than one bid"),
    ("an unknown bid has two seqs", lambda h: rows(h, lambda r: r.append(Row(1, 5, "silent", "eve", 310))), "one seq"),
    ("a row has another amount", lambda h: rows(h, lambda r: r.append(replace(r.pop(), amount=301))), "something else"),
    ("a row has another bidder", lambda h: rows(h, lambda r: r.append(replace(r.pop(), user_id="x"))), "something el"),
    ("a row has another seq", lambda h: request(h, 7, seq=5), "something else"),
    ("a repeat was told another seq", lambda h: request(h, 2, outcome="ok", seq=9), "two numbers"),
    ("a bid of nobody", lambda h: rows(h, lambda r: r.append(Row(1, 5, "ghost", "x", 310))), "by nobody"),
    ("a refused bid is stored", lambda h: request(h, 6, outcome="refused"), "refused bids are in"),
    ("a declined bid is stored", lambda h: request(h, 6, outcome="declined"), "changed nothing"),
    ("accepted and refused", lambda h: request(h, 2, outcome="refused"), "both accepted and refused"),
    ("a gap in the numbers", lambda h: rows(h, lambda r: r.pop(2)), "of 0..4 are not in"),
    ("the creation is missing", lambda h: replace(h, other_seqs=[]), "of 0..4 are not in"),
    ("Redis is behind", lambda h: replace(h, redis_seq=3), "unknown to Redis"),
    ("a price falls", lambda h: rows(h, lambda r: r.insert(0, replace(r.pop(2), amount=150))), "did not raise"),
    ("a price repeats", lambda h: rows(h, lambda r: r.insert(0, replace(r.pop(2), amount=200))), "did not raise"),
    ("accepted too late", lambda h: request(h, 0, invoked_s=1.8, completed_s=1.9), "after a higher or equal"),
    ("unknown, accepted too late", lambda h: request(h, 6, invoked_s=2.6, completed_s=2.7), "after a higher or equal"),
    ("another price in Redis", lambda h: replace(h, redis_price=260), "prices differ"),
    ("no item in Redis", lambda h: replace(h, redis_price=None, redis_seq=None), "prices differ"),
    ("another price in the archive", lambda h: replace(h, archived_price=260), "prices differ"),
    ("a dead letter", lambda h: replace(h, dead_letters=1), "dead letters"),
    ("a viewer stayed behind", lambda h: viewer(h, [Frame(1, 3, 260)]), "prices differ"),
    ("a viewer saw nothing", lambda h: viewer(h, []), "prices differ"),
    ("a viewer's seq fell", lambda h: viewer(h, [Frame(1, 3, 260, False), Frame(1, 2, 200, False), END]), "went back"),
    ("a viewer's epoch fell", lambda h: viewer(h, [Frame(2, 3, 260, False), END]), "went back"),
    ("a viewer's price fell", lambda h: viewer(h, [Frame(1, 3, 400, False), END]), "went back"),
    ("a viewer missed one", lambda h: viewer(h, [Frame(1, 2, 200), Frame(1, 4, 300)]), "was not shown"),
    ("a read is behind a bid", lambda h: read(h, 1, invoked_s=1.75), "were behind"),
    ("a read is behind a read", lambda h: read(h, 3, seq=1, price=100), "were behind"),
    ("a read shows what never was", lambda h: read(h, 2, price=270), "not in PostgreSQL"),
    ("a read shows what was not kept", lambda h: read(h, 3, seq=5, price=310), "not in PostgreSQL"),
    ("shown twice", lambda h: viewer(h, [Frame(1, 3, 260), Frame(1, 4, 300)], [Frame(1, 4, 300)]), "twice"),
]


@pytest.mark.parametrize(
    ("mutate", "complaint"), [(m, c) for _, m, c in MUTATIONS], ids=[name for name, _, _ in MUTATIONS]
)
def test_a_broken_history_is_rejected(mutate: Mutation, complaint: str) -> None:
    found = violations(mutate(sound()))
    assert any(complaint in violation for violation in found), found


def test_a_bid_that_was_sent_again_is_judged_by_its_first_sending() -> None:
    """Its repeat comes after a higher bid was acknowledged, and is told the stored verdict: that is sound."""
    history = sound()
    repeat = Request("a", "ann", 100, 5.0, 5.1, "ok", 1)
    assert violations(replace(history, requests=[*history.requests, repeat])) == []
