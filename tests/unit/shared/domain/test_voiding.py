"""A void: the item becomes what its other accepted bids make it."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st

from shared.domain.auction import State, Status, Terms, buy_now_offered, opening_state
from shared.domain.bidding import Accepted, Bid, place_bid
from shared.domain.errors import BidNotFound, BidStruck, StateConflict
from shared.domain.increments import Increment
from shared.domain.voiding import AfterVoid, LogEntry, Replay, Row, Voided, fate_of, logged, void
from tests.histories import NOW_US, Step, histories, terms
from tests.searching import examples

ONE = Increment("flat", 1)


@dataclass
class Auction:
    """An item under the reference rules, with the log of its accepted bids."""

    terms: Terms
    state: State
    log: tuple[LogEntry, ...] = ()
    rows: list[Row] = field(default_factory=list)

    @classmethod
    def of(cls, **changes: object) -> Auction:
        item = Terms(item_id="item", start_us=NOW_US, start_price=1, increment=ONE)
        return cls.opened(replace(item, **changes))  # type: ignore[arg-type]

    @classmethod
    def opened(cls, item: Terms) -> Auction:
        return cls(item, opening_state(item, NOW_US))

    def bid(self, bid_id: str, user: str, amount: int | None = None, *, up_to: int | None = None) -> None:
        accepted = self.place(Bid(bid_id, user, amount, up_to), NOW_US)
        assert accepted, f"{bid_id} was refused"

    def place(self, bid: Bid, now_us: int) -> bool:
        outcome = place_bid(self.terms, self.state, bid, now_us)
        self.state = outcome.state
        if isinstance(outcome.verdict, Accepted):
            entry = logged(sum(e.kind != "anew" for e in self.log) + 1, bid, outcome)
            self.log += (entry,)
            self.rows += entry.rows()
        return isinstance(outcome.verdict, Accepted)

    def void(self, bid_id: str) -> AfterVoid:
        after = void(self.terms, self.state, self.log, bid_id, NOW_US)
        self.state, self.log = after.state, after.log
        return after

    @property
    def standing(self) -> tuple[int, str | None]:
        return self.state.price, self.state.leader

    @property
    def valid(self) -> list[tuple[str, int]]:
        return [(row.bid_id, row.amount) for entry in self.log for row in entry.rows()]


def test_a_struck_maximum_takes_along_the_automatic_bids_that_came_from_it() -> None:
    item = Auction.of()
    item.bid("of-bob", "bob", up_to=100)
    item.bid("of-ann", "ann", 10)
    assert item.standing == (11, "bob")
    after = item.void("of-bob")
    assert item.standing == (10, "ann")
    assert after.anew is None
    assert item.valid == [("of-ann", 10)]
    assert item.state.bid_count == 1


def test_an_earlier_maximum_comes_back_and_a_later_one_is_left_alone() -> None:
    item = Auction.of()
    item.bid("first", "bob", up_to=50)
    item.bid("raise", "bob", up_to=100)
    item.bid("of-ann", "ann", 60)
    assert (item.standing, item.state.leader_max) == ((61, "bob"), 100)
    struck = Auction(item.terms, item.state, item.log)
    struck.void("raise")
    assert (struck.standing, struck.state.runner_up) == ((60, "ann"), 50)
    item.void("first")
    assert (item.standing, item.state.leader_max) == ((61, "bob"), 100)
    assert item.valid == [("of-ann", 60), ("of-ann/proxy", 61)]


def test_striking_an_old_plain_bid_keeps_a_newer_maximum() -> None:
    item = Auction.of()
    item.bid("plain", "bob", 5)
    item.bid("of-ann", "ann", 10)
    item.bid("maximum", "bob", up_to=40)
    item.void("plain")
    assert (item.standing, item.state.leader_max) == ((11, "bob"), 40)


def test_the_automatic_bids_of_others_are_made_anew_where_no_row_has_the_new_price() -> None:
    item = Auction.of()
    item.bid("of-ann", "ann", up_to=50)
    item.bid("of-bob", "bob", up_to=100)
    item.bid("of-cyd", "cyd", up_to=200)
    assert item.standing == (101, "cyd")
    after = item.void("of-bob")
    assert item.standing == (51, "cyd")
    assert after.anew is not None
    assert (after.voided.current_bid, after.anew.previous, after.anew.amount) == (1, 1, 51)
    assert (after.anew.bid_id, after.anew.user_id, after.anew.kind) == ("of-bob/anew", "cyd", "proxy")
    assert item.valid == [("of-ann", 1), ("of-bob/anew", 51)]
    assert item.state.bid_count == 2


def test_the_answer_right_before_a_maximum_was_raised_came_from_the_earlier_one() -> None:
    """A raised maximum has no event, so it has the number of that answer."""
    item = Auction.of()
    item.bid("of-bob", "bob", up_to=100)
    item.bid("of-ann", "ann", 50)
    item.bid("raised", "bob", up_to=200)
    item.void("of-bob")
    assert item.standing == (51, "bob")
    assert item.valid == [("of-ann", 50), ("of-bob/anew", 51)]


def test_a_bid_that_is_struck_already_is_not_the_one_that_automatic_bids_came_from() -> None:
    item = Auction.of()
    item.bid("higher", "bob", up_to=100)
    item.void("higher")
    item.bid("lower", "bob", up_to=25)
    item.bid("of-ann", "ann", 20)
    item.bid("of-cyd", "cyd", 30)
    after = item.void("lower")
    assert after.voided.automatic_until == after.voided.seq
    assert item.valid == [("of-ann", 20), ("of-cyd", 30)], "bob's automatic bid of 21 came from his lower maximum"


def test_a_struck_tie_leader_leaves_the_lead_to_the_other() -> None:
    item = Auction.of()
    item.bid("of-ann", "ann", up_to=40)
    item.bid("of-bob", "bob", up_to=40)
    assert item.standing == (40, "ann")
    item.void("of-ann")
    assert item.standing == (1, "bob")


def test_with_the_last_bid_buy_now_is_offered_again() -> None:
    item = Auction.of(buy_now_price=80)
    item.bid("of-ann", "ann", 10)
    assert not buy_now_offered(item.terms, item.state)
    item.void("of-ann")
    assert (item.standing, item.state.bid_count) == ((1, None), 0)
    assert buy_now_offered(item.terms, item.state)


def test_a_void_sells_nothing() -> None:
    """Bob's bid was taken as an ordinary one; others bid on since."""
    item = Auction.of(buy_now_price=80)
    item.bid("of-ann", "ann", 10)
    item.bid("of-bob", "bob", 100)
    item.bid("of-cyd", "cyd", 120)
    item.void("of-ann")
    assert (item.standing, item.state.status) == ((120, "cyd"), Status.OPEN)
    item.void("of-cyd")
    assert (item.standing, item.state.status) == ((100, "bob"), Status.OPEN)


@pytest.mark.parametrize(("struck", "offered_to"), [("of-bob", "ann"), ("of-ann", "bob")])
def test_after_the_close_the_item_is_offered_to_who_would_have_won(struck: str, offered_to: str) -> None:
    item = Auction.of()
    item.bid("of-bob", "bob", up_to=100)
    item.bid("of-ann", "ann", 10)
    item.state = replace(item.state, status=Status.SOLD)
    after = item.void(struck)
    assert (after.voided.offered_to, item.state.status, item.state.leader) == (offered_to, Status.UNSOLD, None)
    assert item.state.price == (10 if struck == "of-bob" else 1)
    assert after.anew is None, "no bid has a number after the close"


def test_below_the_reserve_nobody_would_have_won() -> None:
    item = Auction.of(reserve_price=50)
    item.bid("of-ann", "ann", 10)
    item.bid("of-bob", "bob", 60)
    item.state = replace(item.state, status=Status.SOLD)
    assert item.void("of-bob").voided.offered_to is None
    assert not item.state.reserve_met


def test_what_cannot_be_struck_says_why() -> None:
    item = Auction.of(end_us=NOW_US + 10)
    item.bid("of-bob", "bob", up_to=100)
    item.bid("of-ann", "ann", 10)
    with pytest.raises(BidNotFound, match="'of-ann' that it came with"):
        item.void("of-ann/proxy")
    with pytest.raises(BidNotFound):
        item.void("never")
    item.void("of-ann")
    with pytest.raises(BidStruck):
        item.void("of-ann")
    with pytest.raises(StateConflict):
        void(item.terms, item.state, item.log, "of-bob", NOW_US + 10)
    with pytest.raises(StateConflict):
        void(item.terms, replace(item.state, status=Status.CANCELLED), item.log, "of-bob", NOW_US)


@pytest.mark.parametrize(
    ("row", "fate"),
    [
        (Row("b", "zed", 5, 90, False), "voided"),
        (Row("b/proxy", "ann", 6, 90, True), "voided"),
        (Row("b/proxy", "ann", 7, 90, True), None),
        (Row("x/proxy", "zed", 8, 90, True), "voided"),
        (Row("x/proxy", "zed", 9, 90, True), None),
        (Row("x/proxy", "zed", 4, 90, True), None),
        (Row("x/proxy", "ann", 8, 90, True), None),
        (Row("x/proxy", "ann", 8, 100, True), None),
        (Row("x/proxy", "ann", 8, 101, True), "voided"),
        (Row("x", "zed", 8, 100, False), None),
        (Row("x", "zed", 8, 101, False), "repriced"),
        (Row("x", "ann", 19, 101, False), "repriced"),
        (Row("x", "ann", 20, 101, False), None),
        (Row("x/proxy", "zed", 20, 101, True), None),
    ],
)
def test_the_bounds_of_what_a_void_takes_along(row: Row, fate: str | None) -> None:
    """Automatic bids of its bidder from after the bid to before 9; nothing above 100; nothing of later events."""
    assert fate_of(Voided(20, "b", 5, "zed", 90, 9, 100, None), row) == fate


def test_an_event_that_names_no_bidder_strikes_the_bid_and_its_answer() -> None:
    old = Voided(9, "b", 4, None, None, None, 1, None)  # type: ignore[arg-type]
    rows = [Row("b", "bob", 4, 20, False), Row("b/proxy", "ann", 5, 21, True), Row("c", "cyd", 6, 30, False)]
    assert [fate_of(old, row) for row in rows] == ["voided", "voided", None]
    namesakes = [Row("b", "ann", 3, 10, False), Row("b", "ann", 6, 30, False), Row("b/proxy", "ann", 7, 31, True)]
    assert [fate_of(old, row) for row in namesakes] == [None, None, None], "bids of the same id have other numbers"


# ------------------------------------------------------------------------------------------------- any history


def core(state: State) -> tuple[object, ...]:
    return (state.price, state.leader, state.leader_max, state.runner_up, state.bid_count, state.reserve_met)


def counted(item: Auction) -> Replay:
    replay = Replay(item.terms)
    for entry in item.log:
        replay.add(entry)
    return replay


def played(item_terms: Terms, steps: list[Step]) -> Auction:
    """Every bid of a history that is accepted, each under an id of its own."""
    item, number = Auction.opened(item_terms), 0
    for step in steps:
        for keyed in step.bids:
            number += 1
            item.place(replace(keyed.bid, bid_id=f"bid-{number}"), NOW_US + 2_000_000)
    return item


@settings(max_examples=examples(300))
@given(item_terms=terms(), steps=histories())
def test_with_nothing_struck_the_bids_make_what_they_made(item_terms: Terms, steps: list[Step]) -> None:
    item = played(item_terms, steps)
    replay = counted(item)
    assert core(replay.state) == core(item.state)
    assert replay.is_shown


@settings(max_examples=examples(300))
@given(item_terms=terms(), steps=histories(), later=histories(), data=st.data())
def test_voids_in_any_order_and_between_bids(
    item_terms: Terms, steps: list[Step], later: list[Step], data: st.DataObject
) -> None:
    item = played(item_terms, steps)
    ids = [entry.bid.bid_id for entry in item.log]
    chosen = data.draw(st.lists(st.sampled_from(ids), unique=True, max_size=5)) if ids else []
    one, other = (Auction(item.terms, item.state, item.log) for _ in range(2))
    for bid_id in chosen:
        one.void(bid_id)
        assert_promises(one)
    for bid_id in data.draw(st.permutations(chosen)):
        other.void(bid_id)
    assert core(one.state) == core(other.state)
    number = 1_000
    for bid in (keyed.bid for step in later for keyed in step.bids):
        number += 1
        one.place(replace(bid, bid_id=f"bid-{number}"), NOW_US + 3_000_000)
    assert_promises(one)


def assert_promises(item: Auction) -> None:
    replay = counted(item)
    if not item.state.status.is_final:
        assert core(item.state) == core(replay.state), "an item is what its standing bids make it"
        highest = max((amount for _, amount in item.valid), default=item.terms.start_price)
        assert item.state.price == highest, "the price is that of the highest row that stands"
    elif item.state.status is Status.UNSOLD:
        assert item.state.price == replay.state.price
        assert item.state.leader is None
    for row in (row for entry in item.log for row in entry.rows()):
        assert row.amount <= item.state.price


@settings(max_examples=examples(300))
@given(item_terms=terms(), steps=histories(), data=st.data())
def test_as_if_the_others_alone_had_been_placed(item_terms: Terms, steps: list[Step], data: st.DataObject) -> None:
    """Where the rules would have taken each of them in the same way."""
    item = played(replace(item_terms, buy_now_price=None), steps)
    for _ in range(data.draw(st.integers(1, 3))):
        standing = [entry.bid.bid_id for entry in item.log if entry.kind != "anew" and not entry.is_struck]
        if standing:
            item.void(data.draw(st.sampled_from(standing)))
    alone = Auction.opened(item.terms)
    remaining = [entry.bid for entry in item.log if entry.kind != "anew" and not entry.is_struck]
    if all(alone.place(bid, NOW_US + 2_000_000) for bid in remaining):
        assert core(item.state) == core(alone.state)
        event("all taken")
    else:
        event("one refused")


def test_a_bid_below_the_minimum_of_the_replay_counts_all_the_same() -> None:
    """Where the increment falls as the price rises, the minimum may be higher without the struck bid."""
    steep = Increment("ladder", 1, ((100, 200),))
    item = Auction.of(increment=steep)
    item.bid("of-ann", "ann", 90)
    item.bid("of-bob", "bob", 290)
    item.bid("of-cyd", "cyd", 291)
    item.bid("of-dee", "dee", up_to=292)
    item.void("of-bob")
    item.void("of-cyd")
    assert item.standing == (290, "dee")
    item.void("of-ann")
    assert item.standing == (1, "dee")
    assert all(low < high for (_, low), (_, high) in itertools.pairwise(item.valid))
