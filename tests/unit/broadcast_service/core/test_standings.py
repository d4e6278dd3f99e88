"""Standings: how bidders stand, who is told, and what nobody else gets."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest

from broadcast_service.core.pace import Pace
from broadcast_service.core.standings import Facts, Standings, Struck, maximum_to_tell, standing_of
from shared.aliases import alias_of
from shared.domain.auction import Status
from shared.redis_layout.item_hash import ItemState
from tests.unit.broadcast_service.builders import ITEM, content, item

LEADER = "user-5"


def in_status(status: Status, leader: str | None = LEADER) -> ItemState:
    base = item(5)
    return msgspec.structs.replace(base, state=replace(base.state, status=status, leader=leader))


@pytest.mark.parametrize(
    ("status", "leading", "other"),
    [
        (Status.SCHEDULED, "leading", "outbid"),
        (Status.OPEN, "leading", "outbid"),
        (Status.PAUSED, "leading", "outbid"),
        (Status.SOLD, "won", "lost"),
        (Status.UNSOLD, "lost", "lost"),
        (Status.CANCELLED, "lost", "lost"),
    ],
)
def test_standings(status: Status, leading: str, other: str) -> None:
    state = in_status(status)
    assert standing_of(LEADER, state, has_bid=True) == leading
    assert standing_of("ann", state, has_bid=True) == other
    assert standing_of("ann", state, has_bid=False) == "none"
    assert standing_of("ann", None, has_bid=True) == "none"


def test_bidders_are_told_their_own_alias() -> None:
    standings = board()
    for user in ("ann", LEADER):
        standings.listen(user, user, sees_maximum=False)
    standings.learn({"ann": Facts(True), LEADER: Facts(True)})
    aliases = {listener: content(frame)["alias"] for listener, frame in standings.flush(item(5), 0)}
    assert aliases == {user: alias_of(ITEM, user, 0) for user in ("ann", LEADER)}


def test_who_has_bid_is_told_nothing_before_the_item_is_known() -> None:
    """Their alias is that of the item's creation: it would be guessed, and wrong while the secret is being replaced."""
    standings = board()
    standings.listen("a1", "ann", sees_maximum=False)
    standings.learn({"ann": Facts(True)})
    assert told(standings, None) == {}
    standings.listen("a1", "ann", sees_maximum=False)  # viewers have its first frame
    standings.learn({"ann": Facts(True)})
    assert told(standings, item(5)) == {"a1": ("outbid", None)}


def test_a_maximum_that_the_bidder_went_past_is_none_any_more() -> None:
    price = item(5).state.price
    assert maximum_to_tell(LEADER, item(5), Facts(True, price + 1)) == price + 1
    assert maximum_to_tell(LEADER, item(5), Facts(True, price - 1)) is None
    assert maximum_to_tell("ann", item(5), Facts(True, price - 1)) == price - 1
    assert maximum_to_tell("ann", item(5), Facts(True)) is None


def board(rate_max: float = 0) -> Standings[str]:
    return Standings(ITEM, Pace(rate_max))


def told(standings: Standings[str], state: ItemState | None, now_s: float = 0) -> dict[str, tuple[str, object]]:
    shown = {}
    for listener, frame in standings.flush(state, now_s):
        body = content(frame)
        assert listener not in shown
        shown[listener] = (body["standing"], body["your_maximum"])
    return shown


def test_each_is_told_when_it_is_known_and_when_it_changes() -> None:
    standings = board()
    standings.listen("a1", "ann", sees_maximum=False)
    assert told(standings, item(5)) == {}, "nothing was read yet"
    standings.learn({"ann": Facts(False)})
    assert told(standings, item(5)) == {"a1": ("none", None)}
    standings.changed({"ann", "user-5"})
    assert told(standings, item(6)) == {"a1": ("outbid", None)}, "an event concerned ann, so ann bid"
    standings.changed({"ann", "user-6"})
    assert told(standings, item(6)) == {}, "outbid as before"
    standings.changed(set())
    standings.learn({"ann": Facts(True)})
    assert told(standings, in_status(Status.SOLD)) == {"a1": ("lost", None)}


def test_the_frame_says_at_which_version_and_price() -> None:
    standings = board()
    standings.listen("u", LEADER, sees_maximum=False)
    standings.learn({LEADER: Facts(True)})
    [(_, frame)] = standings.flush(item(5), 0)
    assert content(frame) == {
        "type": "standing",
        "item_id": ITEM,
        "epoch": 1,
        "seq": 5,
        "standing": "leading",
        "alias": alias_of(ITEM, LEADER, 0),
        "current_bid": 6.0,
        "min_next_bid": 6.01,
        "your_maximum": None,
    }


def test_a_maximum_is_told_to_its_owner_where_the_token_allows_it_and_to_nobody_else() -> None:
    standings = board()
    standings.listen("allowed", "ann", sees_maximum=True)
    standings.listen("plain", "ann", sees_maximum=False)
    standings.listen("stranger", "bob", sees_maximum=True)
    standings.learn({"ann": Facts(True, 12_345), "bob": Facts(True)})
    assert told(standings, item(5)) == {
        "allowed": ("outbid", 123.45),
        "plain": ("outbid", None),
        "stranger": ("outbid", None),
    }


def test_what_no_event_tells_is_read_again() -> None:
    standings = board()
    standings.listen("a", "ann", sees_maximum=True)
    standings.listen("b", "bob", sees_maximum=False)
    standings.listen("c", "cyd", sees_maximum=False)
    standings.learn({"ann": Facts(True, 5), "bob": Facts(True), "cyd": Facts(False)})
    assert standings.changed({"ann", "bob", "nobody-here"}) == ["ann"], "a new maximum"
    assert set(told(standings, item(5))) == {"b", "c"}, "ann waits for what is read"
    standings.reading(["ann"])
    standings.learn({"ann": Facts(True, 700)})
    assert told(standings, item(5)) == {"a": ("outbid", 7.0)}


def test_what_concerns_everybody_is_read_for_everybody() -> None:
    """Somebody may have bid in a gap, or have no bid left after a void."""
    standings = board()
    for listener, user in (("a", "ann"), ("b", "bob")):
        standings.listen(listener, user, sees_maximum=False)
    standings.learn({"ann": Facts(True), "bob": Facts(False)})
    assert told(standings, item(5)) == {"a": ("outbid", None), "b": ("none", None)}
    assert standings.changed(set()) == ["ann", "bob"]
    assert told(standings, item(9)) == {}
    standings.reading(["ann", "bob"])
    standings.learn({"ann": Facts(False), "bob": Facts(True)})
    assert told(standings, item(9)) == {"a": ("none", None), "b": ("outbid", None)}


def test_a_read_that_is_behind_does_not_take_a_bid_back() -> None:
    standings = board()
    standings.listen("a", "ann", sees_maximum=False)
    standings.learn({"ann": Facts(False)})
    standings.changed({"ann"})
    standings.learn({"ann": Facts(False)})
    assert told(standings, item(6)) == {"a": ("outbid", None)}


def test_an_event_during_the_first_read_counts() -> None:
    standings = board()
    standings.listen("a", "ann", sees_maximum=False)
    standings.changed({"ann"})
    standings.learn({"ann": Facts(False)})
    assert told(standings, item(6)) == {"a": ("outbid", None)}


def test_a_bid_counts_though_everybody_was_concerned_since_and_an_older_read_comes_late() -> None:
    standings = board()
    standings.listen("a", "ann", sees_maximum=False)
    standings.reading(["ann"])
    standings.changed({"ann"})
    assert standings.changed(set()) == ["ann"]
    standings.learn({"ann": Facts(False)})
    assert told(standings, item(6)) == {"a": ("outbid", None)}


def test_what_is_not_known_yet_takes_nothing_from_the_pace() -> None:
    standings = board(rate_max=10)
    standings.listen("a", "ann", sees_maximum=False)
    assert told(standings, item(5), 0.0) == {}
    standings.learn({"ann": Facts(True)})
    assert told(standings, item(5), 0.0) == {"a": ("outbid", None)}
    standings.listen("b", "bob", sees_maximum=False)
    assert standings.due_s() is not None
    standings.leave("b", "bob")
    assert standings.due_s() is None, "nobody is left who wants to know"


def test_listening_again_tells_again() -> None:
    standings = board()
    for _ in range(2):
        standings.listen("a", "ann", sees_maximum=False)
        standings.learn({"ann": Facts(True)})
        assert told(standings, item(5)) == {"a": ("outbid", None)}


def test_changes_faster_than_the_pace_are_told_as_they_are_in_the_end() -> None:
    standings = board(rate_max=10)
    standings.listen("u", LEADER, sees_maximum=False)
    standings.learn({LEADER: Facts(True)})
    assert told(standings, item(5), 0.0) == {"u": ("leading", None)}
    for seq in range(6, 16):
        standings.changed({LEADER})
        assert told(standings, item(seq), 0.05) == {}
    due_s = standings.due_s()
    assert due_s == pytest.approx(0.1)
    assert told(standings, item(16), due_s or 0) == {"u": ("outbid", None)}
    assert standings.due_s() is None


def test_who_left_is_forgotten() -> None:
    standings = board()
    standings.listen("a1", "ann", sees_maximum=False)
    standings.listen("a2", "ann", sees_maximum=False)
    standings.leave("a1", "ann")
    standings.learn({"ann": Facts(True)})
    assert told(standings, item(5)) == {"a2": ("outbid", None)}
    standings.leave("a2", "ann")
    standings.leave("a2", "ann")
    assert len(standings) == 0
    assert standings.due_s() is None


def test_an_item_that_does_not_exist_yet() -> None:
    standings = board()
    standings.listen("a", "ann", sees_maximum=True)
    standings.learn({"ann": Facts(False)})
    [(_, frame)] = standings.flush(None, 0)
    assert (content(frame)["standing"], content(frame)["current_bid"], content(frame)["seq"]) == ("none", None, -1)


def test_an_event_before_a_read_is_in_it() -> None:
    """So a bid that was struck meanwhile no longer counts; until the read ends, the event counts."""
    standings = board()
    standings.listen("a", "ann", sees_maximum=False)
    standings.learn({"ann": Facts(False)})
    standings.changed({"ann"})
    standings.reading(["ann", "nobody-here"])
    assert told(standings, item(6)) == {"a": ("outbid", None)}
    standings.changed(set())
    standings.learn({"ann": Facts(False)})
    assert told(standings, item(7)) == {"a": ("none", None)}


def struck(seq: int, amount: int | None = 1_200) -> Struck:
    return Struck((1, seq), f"b-{seq}", amount, "a mistake", 1_800_000_000_000_000, "USD")


def struck_told(standings: Standings[str]) -> list[tuple[str, int]]:
    frames = [(listener, content(frame)) for listener, frame in standings.flush(item(9), 0)]
    return [(listener, body["seq"]) for listener, body in frames if body["type"] == "struck"]


def test_a_struck_bid_is_told_once_to_each_connection_of_its_bidder() -> None:
    standings = board()
    for listener, user in (("a", "ann"), ("other", "ann"), ("b", "bob")):
        standings.listen(listener, user, sees_maximum=False)
    standings.learn({"ann": Facts(True, struck=(struck(3),)), "bob": Facts(True)})
    assert struck_told(standings) == [("a", 3), ("other", 3)]
    standings.changed(set())
    standings.learn({"ann": Facts(False, struck=(struck(3), struck(7, None))), "bob": Facts(True)})
    assert struck_told(standings) == [("a", 7), ("other", 7)]
    standings.leave("a", "ann")
    standings.listen("a", "ann", sees_maximum=False)
    standings.learn({"ann": Facts(False, struck=(struck(3), struck(7)))})
    assert struck_told(standings) == [("a", 3), ("a", 7)], "a new connection is told anew"


def test_what_was_struck_is_told_with_its_reason() -> None:
    standings = board()
    standings.listen("a", "ann", sees_maximum=False)
    standings.learn({"ann": Facts(False, struck=(struck(3), struck(4, None)))})
    (first, second, _) = [content(frame) for _, frame in standings.flush(item(9), 0)]
    assert (first["bid_id"], first["amount"], first["reason"]) == ("b-3", 12.0, "a mistake")
    assert second["amount"] is None
