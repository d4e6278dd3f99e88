"""The judge must reject every history that breaks a promise, each made from a sound one by one change."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from tests.faults.judging.changes import Mutation, read, request, rows, viewer
from tests.faults.judging.order import _Times
from tests.faults.judging.viewers import _never_goes_back
from tests.faults.rig.history import Frame, History, Listed, Read, Request, Row, Viewer, violations


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


END = Frame(1, 4, 300, False)
PRICES = [(1, 100), (2, 200), (3, 260), (4, 300)]

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
    (
        "a viewer's seq fell in a later epoch, at the same price",
        lambda h: viewer(h, [Frame(1, 1, 100, False), Frame(2, 0, 100, False), Frame(2, 4, 300, False)]),
        "went back",
    ),
    ("a viewer's epoch fell", lambda h: viewer(h, [Frame(2, 3, 260, False), END]), "went back"),
    ("a viewer's price fell", lambda h: viewer(h, [Frame(1, 3, 400, False), END]), "went back"),
    ("a viewer missed one", lambda h: viewer(h, [Frame(1, 2, 200), Frame(1, 4, 300)]), "was not shown"),
    ("a read is behind a bid", lambda h: read(h, 1, invoked_s=1.75), "were behind"),
    ("a read is behind a read", lambda h: read(h, 3, seq=1, price=100), "were behind"),
    (
        "a read is behind another read, of a bid that nobody has acknowledged",
        lambda h: replace(h, reads=[*h.reads, Read(1, 2, 200, 2.25, 2.3)]),
        "were behind",
    ),
    ("a read shows what never was", lambda h: read(h, 2, price=270), "not in PostgreSQL"),
    ("a read shows what was not kept", lambda h: read(h, 3, seq=5, price=310), "not in PostgreSQL"),
    ("a read of an epoch below that of its state", lambda h: read(h, 3, epoch=0), "not in PostgreSQL"),
    ("no snapshot at first", lambda h: viewer(h, [Frame(1, n, p) for n, p in PRICES]), "begins without a snapshot"),
    (
        "a row above what everybody has, where not all events are known",
        lambda h: replace(
            viewer(h, [Frame(1, 5, 260, False)]), other_seqs=[0, 5], redis_seq=5, redis_price=260, archived_price=260
        ),
        "the highest row 300",
    ),
    ("shown twice", lambda h: viewer(h, [Frame(1, 3, 260), Frame(1, 4, 300)], [Frame(1, 4, 300)]), "twice"),
]


@pytest.mark.parametrize(
    ("mutate", "complaint"), [(m, c) for _, m, c in MUTATIONS], ids=[name for name, _, _ in MUTATIONS]
)
def test_a_broken_history_is_rejected(mutate: Mutation, complaint: str) -> None:
    found = violations(mutate(sound()))
    assert any(complaint in violation for violation in found), found


# What a viewer is shown when it comes back, after FIRST.
FIRST = [Frame(1, 0, 0, False), Frame(1, 1, 100)]
RESUMED = Frame(1, 4, None, False, "resumed", replayed=3, since=(1, 1))
MISSED = [Frame(1, 2, 200), Frame(1, 3, 260), Frame(1, 4, 300)]


def snapshot(seq: int, price: int, *, epoch: int = 1, recovered: bool | None = False) -> Frame:
    return Frame(epoch, seq, price, False, "snapshot", recovered)


RESUMPTIONS: list[tuple[str, list[Frame], str]] = [
    ("events are skipped", MISSED[1:], "are skipped at the resumption"),
    ("an older snapshot", [snapshot(0, 0), snapshot(4, 300)], "older than"),
    ("an older snapshot in the middle", [snapshot(1, 100), snapshot(0, 100), *MISSED], "went back"),
    ("an epoch that falls", [snapshot(4, 300, epoch=0)], "older than"),
    ("a snapshot that does not say what it skips", [snapshot(4, 300, recovered=None)], "does not say that it skips"),
    ("a snapshot in the middle that does not say so", [*MISSED[:1], snapshot(4, 300, recovered=None)], "not told that"),
    ("fewer events than promised", [RESUMED, *MISSED[1:]], "were promised"),
    ("events that were not promised", [replace(RESUMED, replayed=1, seq=2), MISSED[0], MISSED[2]], "was not shown"),
    ("a promise of another state", [replace(RESUMED, seq=5), *MISSED], "do not lead to"),
    ("resumed after something else", [replace(RESUMED, since=(1, 0)), *MISSED], "resumes after"),
    ("resumed before what was shown", [replace(RESUMED, seq=0, replayed=0), *MISSED], "resumes up to"),
    ("a state that never was", [RESUMED, MISSED[0], replace(MISSED[1], price=250), MISSED[2]], "what is not in"),
    ("nothing at the end", [RESUMED, *MISSED[:2]], "was shown nothing after"),
]


@pytest.mark.parametrize(("frames", "complaint"), [each[1:] for each in RESUMPTIONS], ids=[r[0] for r in RESUMPTIONS])
def test_a_viewer_who_comes_back_wrongly_is_noticed(frames: list[Frame], complaint: str) -> None:
    found = violations(viewer(sound(), FIRST, frames))
    assert any(complaint in violation for violation in found), found


def test_a_void_explains_the_fall_of_a_price_once() -> None:
    fell = Viewer("v", [[Frame(1, 4, 300, False), Frame(1, 5, 260)]])
    assert list(_never_goes_back(fell, [5])) == []
    for elsewhere in ([], [4], [6]):
        assert len(list(_never_goes_back(fell, elsewhere))) == 1, "that void was before, or is still to come"


def test_viewers_may_come_back_to_all_or_be_told() -> None:
    cut_off = [[RESUMED, *MISSED[:1]], [replace(RESUMED, since=(1, 2), replayed=2), *MISSED[1:]]]
    for connections in ([MISSED], [[RESUMED, *MISSED]], [[snapshot(4, 300)]], cut_off):
        assert violations(viewer(sound(), FIRST, *connections)) == []
    hidden = viewer(sound(), FIRST, [Frame(1, 4, 300)])
    # Two bids were passed over; the client of one of them never heard that it was accepted.
    assert (hidden.hidden, sound().hidden) == (1, 0)
    # Here the last bid is not shown either: a snapshot shows where it led to.
    unannounced = viewer(sound(), FIRST, [snapshot(4, 300, recovered=None)])
    assert (unannounced.hidden, viewer(sound(), FIRST, [snapshot(4, 300)]).hidden) == (2, 0)


def test_what_was_never_shown_or_listed_is_hidden() -> None:
    """Of the three acknowledged bids: those after the last frame, all for who saw nothing, those that no page lists."""
    assert [viewer(sound(), frames).hidden for frames in (FIRST, [*FIRST, *MISSED[:2]], [])] == [2, 1, 3]
    listed = [Listed(row.seq, row.bid_id, row.amount, "bid", False) for row in sound().rows]
    assert [replace(sound(), listed=each).hidden for each in (listed, listed[1:], [])] == [0, 1, 3]


def test_who_was_answered_before_a_decision_was_sent_stands_before_it_whatever_came_later() -> None:
    """Numbers need not follow the order of sending: here the first one was sent last."""
    times = _Times([(5.0, math.inf), (1.0, math.inf), (3.0, math.inf)])
    assert [times.latest(answered_s) for answered_s in (0.5, 4.0, 5.0, 6.0)] == [0, 0, 3, 3]


def test_a_bid_that_was_sent_again_is_judged_by_its_first_sending() -> None:
    """Its repeat comes after a higher bid was acknowledged, and is told the stored verdict: that is sound."""
    history = sound()
    repeat = Request("a", "ann", 100, 5.0, 5.1, "ok", 1)
    assert violations(replace(history, requests=[*history.requests, repeat])) == []
