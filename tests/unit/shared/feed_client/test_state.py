"""What a client of the live feed shows: each version once, never an older one, and gaps that say so."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest

from shared.feed_client.updates import ItemUpdate
from tests.unit.shared.feed_client.feed_frames import (
    ITEM,
    TIME,
    begun,
    client,
    event,
    marker,
    said,
    shown,
    snapshot,
    take,
)


class TestWhatIsShown:
    def test_a_snapshot_and_then_each_event(self) -> None:
        state = begun()
        step = take(state, snapshot(3), event(4), event(5, kind="extended", end_time=TIME), event(6))
        assert shown(step) == [("snapshot", 3, True), ("bid", 4, True), ("extended", 5, True), ("bid", 6, True)]
        assert [each.bids for each in step.updates if isinstance(each, ItemUpdate)] == [None, 1, 0, 1]
        view = state.item(ITEM)
        assert view is not None
        assert (view["current_bid"], view["end_time"], view["name"]) == (16, TIME, "A vase")

    def test_an_event_does_not_leave_what_only_fitted_the_version_before(self) -> None:
        state = begun(snapshot(3))
        assert "suggested_bids" in (state.item(ITEM) or {})
        take(state, event(4))
        assert {"suggested_bids", "buy_now_available"}.isdisjoint(state.item(ITEM) or {})

    def test_an_update_keeps_the_state_that_it_was_made_of(self) -> None:
        state = begun()
        first, second = (take(state, frame).updates[-1] for frame in (snapshot(3), event(4)))
        assert isinstance(first, ItemUpdate)
        assert isinstance(second, ItemUpdate)
        assert [first.price, second.price] == [Decimal(13), Decimal(14)]

    def test_amounts_are_exact(self) -> None:
        state = begun(snapshot(3))
        text = json.dumps(event(4)).replace('"current_bid": 14', '"current_bid": 9007199254740993.07')
        [update] = state.received(text, 0).updates
        assert isinstance(update, ItemUpdate)
        assert update.price == Decimal("9007199254740993.07")

    @pytest.mark.parametrize(
        "old", [snapshot(4), snapshot(5), event(4), event(5), event(5, kind="state"), event(9, epoch=0)]
    )
    def test_what_is_not_newer_is_not_shown(self, old: dict[str, Any]) -> None:
        state = begun(snapshot(3), event(4), event(5))
        assert shown(take(state, old)) == []
        assert state.version(ITEM) == (1, 5)
        assert (state.item(ITEM) or {})["current_bid"] == 15

    def test_a_snapshot_of_the_same_version_adds_what_events_do_not_tell(self) -> None:
        state = begun(snapshot(3), event(4))
        assert shown(take(state, snapshot(4, suggested_bids=[99]))) == []
        assert (state.item(ITEM) or {})["suggested_bids"] == [99]

    def test_a_higher_epoch_is_newer_whatever_its_price(self) -> None:
        state = begun(snapshot(7))
        assert shown(take(state, snapshot(2, epoch=2, recovered=False))) == [("snapshot", 2, False)]
        assert (state.item(ITEM) or {})["current_bid"] == 12

    def test_a_void_may_lower_the_price(self) -> None:
        state = begun(snapshot(7))
        assert shown(take(state, event(8, kind="voided", current_bid=1))) == [("voided", 8, True)]

    def test_an_item_that_nobody_made_yet(self) -> None:
        state = begun()
        [unknown] = take(
            state, {"type": "snapshot", "item_id": ITEM, "status": "unknown", "epoch": 0, "seq": -1}
        ).updates
        assert isinstance(unknown, ItemUpdate)
        assert unknown.price is None
        assert shown(take(state, snapshot(0), event(1))) == [("snapshot", 0, True), ("bid", 1, True)]

    def test_an_auction_that_goes_on_after_a_pause_is_no_answer_to_since(self) -> None:
        state = begun(snapshot(3), event(4, kind="paused", status="paused"))
        assert shown(take(state, event(5, kind="resumed", reason="found"))) == [("resumed", 5, True)]

    @pytest.mark.parametrize(
        "noise",
        [
            "",
            "no JSON",
            "[]",
            "null",
            '"text"',
            b"\xff",
            "{}",
            '{"type":7}',
            '{"type":"novelty","item_id":"vase","epoch":1,"seq":9}',
            '{"type":"bid","item_id":"other","epoch":1,"seq":9}',
            '{"type":"bid","item_id":"vase"}',
            '{"type":"bid","item_id":"vase","epoch":1,"seq":true}',
            '{"type":"bid","item_id":"vase","epoch":"1","seq":"9"}',
            '{"type":"bid","item_id":["vase"],"epoch":1,"seq":9}',
            '{"type":"viewers","item_id":"vase","viewers":"many"}',
            '{"type":"heartbeat","server_time":"noon"}',
            '{"type":"heartbeat","server_time":"2026-03-01T12:00:00"}',
            '{"type":"connected","heartbeat_s":"5"}',
        ],
    )
    def test_what_is_not_understood_is_skipped(self, noise: str | bytes) -> None:
        state = begun(snapshot(3))
        step = state.received(noise, 0)
        assert (step.updates, step.messages) == ([], [])
        assert shown(take(state, event(4))) == [("bid", 4, True)]


class TestGaps:
    def test_a_state_stands_for_the_bids_before_it(self) -> None:
        state = begun(snapshot(3))
        [update] = take(state, event(9, kind="state", bids_since_last=6)).updates
        assert isinstance(update, ItemUpdate)
        assert (update.bids, update.complete) == (6, False)

    def test_without_every_event_a_gap_is_shown_as_one(self) -> None:
        state = begun(snapshot(3))
        step = take(state, event(5))
        assert (shown(step), step.messages) == ([("bid", 5, False)], [])

    def test_with_every_event_the_missing_ones_are_asked_for_and_shown_first(self) -> None:
        state = begun(snapshot(3), full=True)
        step = take(state, event(6))
        assert shown(step) == []
        assert said(step.messages) == [{"op": "subscribe", "items": [ITEM], "since": {ITEM: "1:3"}, "feed": "full"}]
        # What was under way before the service read that is repeated in order by its answer.
        assert shown(take(state, event(7))) == []
        step = take(state, marker("1:3", 7), event(4), event(5), event(6), event(7), event(8))
        assert shown(step) == [("bid", seq, True) for seq in (4, 5, 6, 7, 8)]
        assert step.messages == []

    def test_a_gap_that_stays_is_asked_for_once_and_then_shown_as_one(self) -> None:
        state = begun(snapshot(3), full=True)
        take(state, event(6))
        step = take(state, marker("1:3", 6), event(6))
        assert (shown(step), step.messages) == ([("bid", 6, False)], [])
        assert shown(take(state, event(7))) == [("bid", 7, True)]
        assert len(take(state, event(9)).messages) == 1

    def test_what_cannot_be_had_any_more_is_a_snapshot(self) -> None:
        state = begun(snapshot(3), full=True)
        take(state, event(6))
        assert shown(take(state, snapshot(6, recovered=False))) == [("snapshot", 6, False)]
        # Another gap is another question.
        assert len(take(state, event(9)).messages) == 1

    def test_a_state_is_no_gap_to_ask_about_for_it_is_this_viewer_who_is_slow(self) -> None:
        state = begun(snapshot(3), full=True)
        step = take(state, event(6, kind="state", bids_since_last=3))
        assert (shown(step), step.messages) == ([("state", 6, False)], [])

    def test_the_service_is_asked_for_every_event(self) -> None:
        assert (client(full=True).query, client().query) == ("feed=full", "")
        assert [said(client(full=full).opened().messages)[0].get("feed") for full in (True, False)] == ["full", None]
