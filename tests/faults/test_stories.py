"""The judge must reject every change, as in test_history.py, of a history with every kind of bid and operation: maxima,
voids, a pause, an end that moves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from shared.domain.auction import Terms
from shared.domain.increments import Increment
from tests.faults.judging.changes import Mutation, read, viewer
from tests.faults.judging.honest import SECOND_US, Honest
from tests.faults.judging.records import public_of
from tests.faults.judging.story import (
    ECHO,
    GHOST_OPERATION,
    before_the_voids,
    bid,
    body,
    conflict,
    events,
    events_at,
    fact,
    late_void,
    more,
    moved,
    operation,
    operations,
    recounted,
    redis,
    refusal,
    row,
    story,
    told,
    told_again,
)
from tests.faults.rig.history import Answer, Frame, History, Listed, Operation, Request, Row, violations


def test_the_story_is_accepted() -> None:
    history = story()
    assert violations(history) == []
    assert history.replay.is_whole
    assert (history.acknowledged, history.lost, history.doubled, history.hidden) == (7, 0, 0, 0)
    assert [each.outcome for each in history.requests].count("refused") == 5
    assert {event.type for event in history.events} == {
        *("created", "voided", "paused", "resumed", "extended", "closed"),
    }


STORIES: list[tuple[str, Mutation, str]] = [
    # Refusals that no state at any moment of the request justifies.
    ("too low without reason", lambda h: bid(h, "low", amount=120), "refusals are true of no state"),
    ("another code", lambda h: bid(h, "low", code="CLOSED"), "refusals are true of no state"),
    ("another price in a refusal", lambda h: told(h, "low", current_bid=101), "refusals are true of no state"),
    ("another minimum in a refusal", lambda h: told(h, "low", min_next_bid=111), "refusals are true of no state"),
    ("a lead that is none", lambda h: told(h, "low", leads=True), "refusals are true of no state"),
    ("a reserve that is not met", lambda h: told(h, "low", reserve_met=True), "refusals are true of no state"),
    ("refused by an older state", lambda h: moved(h, "low", 9.1), "refusals are true only of states that were over"),
    ("paused before the pause", lambda h: moved(h, "paused", 9.1), "refusals are true of no state"),
    ("paused after the pause", lambda h: moved(h, "paused", 30.0), "states that were over"),
    ("paused, and sent again after it", lambda h: more(h, refusal("paused", "PAUSED", 30.0)), "states that were over"),
    ("not started, and it has", lambda h: more(h, refusal("early", "NOT_STARTED", 1.8)), "refusals are true of no"),
    ("closed before the end", lambda h: moved(h, "late", 30.0), "refusals are true of no state"),
    ("own item, and it is not", lambda h: bid(h, "own", user_id="ann"), "refusals are true of no state"),
    ("a maximum that was raised", lambda h: bid(h, "not raised", max_amount=601), "refusals are true of no state"),
    # Hidden maxima.
    ("a raised maximum is lost", lambda h: replace(h, sealed=[f for f in h.sealed if not f.is_raise]), "are lost"),
    ("a maximum is stored otherwise", lambda h: fact(h, 0, max_amount=410), "something else than was told"),
    ("a maximum that changes the price", lambda h: fact(h, 0, max_amount=355), "leads by the rules to"),
    ("a raised maximum of nobody", lambda h: fact(h, 2, key="x", bid_id="x"), "by nobody"),
    ("another maximum in Redis", lambda h: redis(before_the_voids(h), leader_max=950), "Redis has"),
    ("another runner-up in Redis", lambda h: redis(before_the_voids(h), runner_up=1), "Redis has"),
    # The rules.
    ("an automatic bid too high", lambda h: row(h, 4, amount=365), "leads by the rules to"),
    ("an automatic bid of another", lambda h: row(h, 4, user_id="ann"), "leads by the rules to"),
    ("an automatic bid is missing", lambda h: replace(h, rows=[r for r in h.rows if r.seq != 4]), "not in PostgreSQL"),
    ("another price before", lambda h: row(h, 3, previous=299), "leads by the rules to"),
    ("another leader after", lambda h: row(h, 3, leader=None), "leads by the rules to"),
    ("accepted while paused", lambda h: row(events_at(h, "resumed", 8), 8, seq=7), "it is refused: PAUSED"),
    ("accepted after the end", lambda h: row(h, 11, at_us=999 * SECOND_US), "it is refused: CLOSED"),
    ("an end that moved too far", lambda h: body(h, "extended", end_us=1), "leads by the rules to"),
    ("an event with another count", lambda h: body(h, "paused", bid_count=9), "by the rules it is"),
    (
        "a close before the end",
        lambda h: replace(h, events=[replace(e, at_us=1) if e.type == "closed" else e for e in h.events]),
        "nothing has brought it about",
    ),
    (
        "another item in PostgreSQL",
        lambda h: replace(h, archived=h.archived and h.archived._replace(bid_count=1)),
        "PostgreSQL's item",
    ),
    ("another end in Redis", lambda h: redis(h, end_us=1), "Redis has"),
    ("another number of extensions in Redis", lambda h: redis(h, extensions=9), "Redis has"),
    ("an epoch in Redis that is over", lambda h: redis(h, epoch=0), "Redis is at epoch 0"),
    ("an epoch that falls", lambda h: events(h, "created", epoch=2), "the epoch falls from 2 to 1"),
    ("a raise that has another number", lambda h: fact(h, 2, seq=3), "a decision has seq 3"),
    ("an end that moved from another one", lambda h: body(h, "extended", previous_end_us=1), "leads by the rules to"),
    ("another state in a frame", lambda h: viewer(h, recounted(h)), "show what is not in PostgreSQL"),
    # Voids.
    ("a void leaves too much", lambda h: body(h, "voided", current_bid=800), "by the rules it is"),
    ("a void offers to the struck bidder", lambda h: body(h, "voided", offered_to="fay"), "offers to fay"),
    ("a bid is struck twice", lambda h: body(h, "voided", bid_id="*3"), "there is no such bid"),
    ("a void after the end, before the close", lambda h: late_void(h), "the item is closing or cancelled"),
    ("a struck bid is not marked", lambda h: row(h, 11, is_voided=False), "struck"),
    ("a bid is marked that is not struck", lambda h: row(h, 1, is_voided=True), "struck"),
    # Operators.
    ("an operation is lost", lambda h: operations(h, GHOST_OPERATION), "are lost"),
    ("a refused operation is done", lambda h: operation(h, "pause", outcome="refused"), "refused operations"),
    ("an operation of nobody", lambda h: replace(h, operations=(h.operations or [])[1:]), "asked for by nobody"),
    ("a conflict without reason", lambda h: operations(h, conflict("pause", 1.8)), "conflicts are true of no state"),
    ("an operation is done twice", lambda h: body(h, "resumed", reason="pause 1"), "operations are in PostgreSQL more"),
    (
        "nothing to resume, and there is",
        lambda h: operations(h, conflict("resume", 17.5)),
        "conflicts are true only of",
    ),
    ("nothing to cancel, and there is", lambda h: operations(h, conflict("cancel", 1.8)), "conflicts are true of no"),
    ("nothing to void, and there is", lambda h: operations(h, conflict("void", 1.8)), "conflicts are true of no"),
    ("no such bid, and there is", lambda h: operations(h, conflict("void", 4.0, "a")), "conflicts are true only of"),
    # Real time.
    ("acknowledged, then decided after a later one", lambda h: moved(h, "d", 500.0), "after a higher or equal one"),
    (
        "sent after a pause was confirmed, then decided before it",
        lambda h: moved(h, "raise", 16.5),
        "after a higher or equal one",
    ),
    (
        "a void after what it must precede",
        lambda h: operation(h, "resume", invoked_s=500.0, completed_s=500.1),
        "after a higher or equal one",
    ),
    ("a read behind a void", lambda h: read(h, 0, invoked_s=90.0, completed_s=90.1), "were behind"),
    (
        "a read of another leader",
        lambda h: read(h, 0, public=h.reads[0].public and h.reads[0].public._replace(leader="ann")),
        "reads showed",
    ),
    (
        "an absent key that was decided",
        lambda h: more(h, Request("a", "ann", 100, 60.0, 60.1, "absent", is_lookup=True)),
        "states that were over",
    ),
    # Answers.
    ("a lead that was not won", lambda h: told(h, "c", leads=True), "tell what was not decided"),
    ("a price that was not made", lambda h: told(h, "b", current_bid=110), "tell what was not decided"),
    ("a minimum that was not made", lambda h: told(h, "c", min_next_bid=1), "tell what was not decided"),
    ("another id in the answer to a repeat", lambda h: told_again(h, "b", bid_id="*99"), "two numbers"),
    ("another id in the answer", lambda h: told(h, "a", bid_id="z"), "something else than was told"),
    # Keys.
    ("an echo is taken", lambda h: more(h, ECHO), "that of another bid"),
    (
        "a good bid is rejected",
        lambda h: more(h, replace(ECHO, is_misuse=False, outcome="rejected", seq=None)),
        "nothing is wrong with",
    ),
    (
        "a bid without key, stored twice",
        lambda h: bid(h, "e", outcome="unknown", user_id="x", told=None, seq=None),
        "by nobody",
    ),
    (
        "another's bid under the id that was told",
        lambda h: row(h, 10, user_id="cid"),
        "are lost",
    ),
    # The history page.
    ("a bid that is not listed", lambda h: replace(h, listed=(h.listed or [])[1:]), "are not on the history page"),
    (
        "a struck bid that is listed as standing",
        lambda h: replace(h, listed=[replace(each, is_voided=False) for each in h.listed or ()]),
        "are not on the history page",
    ),
    (
        "a bid that is listed only",
        lambda h: replace(h, listed=[Listed(30, "x", 1, "bid", False), *(h.listed or ())]),
        "history page only",
    ),
    (
        "a bid that is listed twice",
        lambda h: replace(h, listed=[(h.listed or [])[0], *(h.listed or ())]),
        "twice or out of order",
    ),
]


@pytest.mark.parametrize(("mutate", "complaint"), [each[1:] for each in STORIES], ids=[each[0] for each in STORIES])
def test_a_broken_story_is_rejected(mutate: Mutation, complaint: str) -> None:
    found = violations(mutate(story()))
    assert any(complaint in violation for violation in found), found


def test_a_struck_bid_can_be_struck_no_more_from_its_void_on() -> None:
    """Nothing was decided since. Before the void was sent there was no reason to refuse it."""
    last = story().operations or ()
    again = Operation(
        "void", "again", last[-1].completed_s + 0.1, last[-1].completed_s + 0.2, "refused", "BID_STRUCK", "f"
    )
    assert violations(operations(story(), again)) == []
    early = replace(again, invoked_s=last[-1].invoked_s - 0.2, completed_s=last[-1].invoked_s - 0.1)
    assert any(
        "conflicts are true only of states that were over" in each for each in violations(operations(story(), early))
    )


def bought() -> History:
    """Somebody buys at once."""
    item = Honest(Terms("lot", 0, buy_now_price=500, increment=Increment("flat", 10)))
    item.bid("now", "ann", 500)
    return item.history()


def bidding_anew() -> History:
    """The first of two bids is struck, and no row has the price of the other one's maximum alone: it bids anew."""
    terms = Terms("lot", 0, increment=Increment("flat", 10))
    item = Honest(terms)
    item.bid("a", "ann", 100)
    item.bid("b", "bob", maximum=400)
    item.operate("void", "a")
    voided, after = item.events[-1], item.state
    shown = public_of(terms, replace(after, price=terms.start_price))
    changed = {**voided.body, "current_bid": shown.price, "min_next_bid": shown.min_next_bid}
    item.events[-1] = replace(voided, body=changed)
    item.frames[-1] = replace(item.frames[-1], price=shown.price, public=shown)
    item.state = replace(after, seq=after.seq + 1)
    row = Row(1, item.state.seq, "a/anew", "bob", after.price, "proxy", shown.price, at_us=voided.at_us)
    item.rows.append(row)
    public = public_of(terms, item.state)
    item.frames.append(Frame(1, row.seq, row.amount, type="bid", public=public))
    return item.history()


def test_a_purchase_and_a_maximum_that_bids_anew_are_accepted() -> None:
    for history in (bought(), bidding_anew()):
        assert violations(history) == []
        assert history.replay.is_whole


@pytest.mark.parametrize(
    ("history", "complaint"),
    [
        (lambda: body(bought(), "closed", winner_id="bob"), "leads by the rules to"),
        (lambda: row(bidding_anew(), 4, amount=5), "has bob bid 5 anew, and bob leads at 1"),
        (lambda: row(bidding_anew(), 4, user_id="ann"), "has ann bid 1 anew, and bob leads at 1"),
        (lambda: body(bidding_anew(), "voided", current_bid=100), "by the rules it is"),
    ],
    ids=["another winner", "another price", "another bidder", "another price before"],
)
def test_a_purchase_and_a_maximum_that_bids_anew_otherwise_are_rejected(
    history: Callable[[], History], complaint: str
) -> None:
    found = violations(history())
    assert any(complaint in violation for violation in found), found


def test_what_became_of_a_bid_without_a_key_need_not_be_known() -> None:
    """Its client was told nothing, and it was stored; another one like it was not."""
    history = bid(story(), "e", outcome="unknown", told=None, seq=None)
    again = Request("e2", "eve", 700, 500.0, 501.0, "unknown", None, None, "none")
    assert violations(more(history, again)) == []
    twice = replace(history, rows=[*history.rows, replace(history.rows[-1], seq=99, bid_id="*99")])
    assert any("by nobody" in each for each in violations(twice))


@pytest.mark.parametrize(
    ("price", "lost_at_s", "is_right"),
    [(500, 3.5, True), (500, None, False), (500, 2.9, False), (100, 3.5, False)],
    ids=["of what was lost", "nothing was lost", "asked after the loss", "of what was left"],
)
def test_a_refusal_may_tell_of_a_bid_that_redis_has_lost_since(
    price: int, lost_at_s: float | None, is_right: bool
) -> None:
    """What nobody had acknowledged may be lost with Redis; whoever was refused because of it was told no lie."""
    item = Honest(Terms("lot", 0, increment=Increment("flat", 10)))
    item.bid("a", "ann", 300)
    refused = Request(
        "low", "bob", 310, 3.0, 3.1, "refused", code="TOO_LOW", told=Answer(price, price + 10, False, True)
    )
    history = item.history()
    history = replace(history, requests=[*history.requests, refused], lost_s=() if lost_at_s is None else (lost_at_s,))
    assert (violations(history) == []) == is_right, violations(history)


@pytest.mark.parametrize(
    ("price", "asked_at_s", "is_right"),
    [(500, 3.5, False), (700, 3.5, True), (700, 4.1, False), (400, 1.5, True), (200, 1.5, False)],
    ids=["never true", "of what was lost", "asked after the losses", "of what was lost before", "of what was left"],
)
def test_what_may_be_lost_is_known_also_where_a_loss_brought_no_epoch(
    price: int, asked_at_s: float, is_right: bool
) -> None:
    """Redis lost something twice, and of this item only the first time. What was acknowledged before a loss is left."""
    item = Honest(Terms("lot", 0, increment=Increment("flat", 10)))
    for name, amount in (("a", 300), ("b", 600), ("c", 900)):
        item.bid(name, "ann" if name != "b" else "cyd", amount)
    told = Answer(price, price + 10, False, True)
    refused = Request("low", "bob", 100, asked_at_s, asked_at_s + 0.05, "refused", code="TOO_LOW", told=told)
    history = item.history()
    assert history.redis_state is not None
    history = replace(
        history,
        rows=[replace(row, epoch=1 if row.seq == 1 else 2) for row in history.rows],
        redis_state=replace(history.redis_state, epoch=2),
        requests=[*history.requests, refused],
        viewers=[],
        lost_s=(2.0, 4.0),
    )
    assert (violations(history) == []) == is_right, violations(history)
