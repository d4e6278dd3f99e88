"""Events as columns."""

from __future__ import annotations

import msgspec

from archival_worker.store.columns import (
    bid_columns,
    event_columns,
    newest_per_item,
    place_ranges,
    state_columns,
    term_columns,
)
from shared.messages import BidAccepted, ItemCreated, type_of
from tests.unit.archival_worker.events import bid, closed, created


def test_the_newest_event_is_the_one_of_the_highest_epoch_then_seq() -> None:
    events = [bid("a", 3), bid("b", 9), bid("a", 2, epoch=2), bid("a", 8)]
    assert [(event.item_id, event.version) for event in newest_per_item(events)] == [("a", (2, 2)), ("b", (1, 9))]


def test_one_state_per_item() -> None:
    columns = state_columns([bid("a", 1), closed("a", 2), bid("b", 1)])
    assert columns[0] == ["a", "b"]
    assert columns[2] == [2, 1]
    assert columns[7] == ["sold", "open"]


def test_the_leader_is_kept_only_where_it_is_not_the_bidder() -> None:
    bids = [bid("a", 1, user_id="ada"), bid("a", 2, user_id="bob", leader="ada")]
    columns = bid_columns([event for event in bids if isinstance(event, BidAccepted)])
    assert columns[4] == ["ada", "bob"]
    assert columns[8] == [None, "ada"]


def test_places_are_ranges_per_item_and_epoch() -> None:
    events = [bid("a", 7), bid("b", 1), bid("a", 3), bid("a", 9, epoch=2), bid("a", 5)]
    assert place_ranges(events) == (["a", "b", "a"], [1, 1, 2], [3, 1, 9], [7, 1, 9])
    assert place_ranges([]) == ([], [], [], [])


def test_an_event_keeps_its_whole_body() -> None:
    event = closed("a", 2)
    columns = event_columns([event])
    assert columns[3] == ["closed"]
    assert msgspec.json.decode(columns[4][0]) == msgspec.json.decode(msgspec.json.encode(event))


def test_types_are_those_of_the_wire() -> None:
    assert [type_of(event) for event in (created("a"), bid("a", 1), closed("a", 2))] == ["created", "bid", "closed"]


def test_terms_of_one_item_are_one_row() -> None:
    events = [created("a", name="old"), created("a", name="new", epoch=2)]
    columns = term_columns([event for event in events if isinstance(event, ItemCreated)])
    assert columns[0] == ["a"]
    assert columns[1] == ["new"]
