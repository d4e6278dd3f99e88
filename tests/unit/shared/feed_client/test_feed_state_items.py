"""Items that a client of the live feed follows while it runs, what is refused, and the private channel."""

from __future__ import annotations

from decimal import Decimal

import pytest

from shared.feed_client.state import MESSAGE_BYTES_MAX
from shared.feed_client.updates import Authenticated, Refused, Standing, Viewers
from tests.unit.shared.feed_client.feed_frames import (
    CONNECTED,
    ITEM,
    TIME,
    begun,
    client,
    event,
    said,
    shown,
    snapshot,
    take,
)


class TestItemsAtRunTime:
    def test_follow_and_unfollow(self) -> None:
        state = begun(snapshot(1))
        assert said(state.follow(["b", ITEM]).messages) == [{"op": "subscribe", "items": ["b"]}]
        assert said(state.unfollow([ITEM, "never"]).messages) == [{"op": "unsubscribe", "items": [ITEM]}]
        assert state.items == ("b",)
        assert state.item(ITEM) is None
        assert shown(take(state, event(2))) == []

    def test_without_a_connection_it_is_said_by_the_next_one(self) -> None:
        state = client()
        assert state.follow(["b"]).messages == []
        assert state.unfollow([ITEM]).messages == []
        assert said(state.opened().messages) == [{"op": "subscribe", "items": ["b"]}]

    def test_whoever_comes_back_to_an_item_begins_with_its_snapshot(self) -> None:
        state = begun(snapshot(5))
        state.unfollow([ITEM])
        assert said(state.follow([ITEM]).messages) == [{"op": "subscribe", "items": [ITEM]}]
        assert shown(take(state, event(6), snapshot(7))) == [("snapshot", 7, True)]

    @pytest.mark.parametrize("item_id", ["", "a b", "a" * 65, "ä"])
    def test_what_is_no_item_id_is_not_even_sent(self, item_id: str) -> None:
        state = begun()
        with pytest.raises(ValueError, match="no item id"):
            state.follow(["fine", item_id])
        assert state.items == (ITEM,)

    def test_messages_are_small_enough_for_the_service(self) -> None:
        items = [f"{number:064d}" for number in range(200)]
        state = client(*items)
        state.opened()
        take(state, *(snapshot(10**14, epoch=10**14, item_id=item_id) for item_id in items))
        state.closed(1006, "", 0)
        messages = state.opened().messages
        assert all(len(message) <= MESSAGE_BYTES_MAX + 100 for message in messages)
        asked = said(messages)
        assert [item_id for each in asked for item_id in each["items"]] == items
        assert [item_id for each in asked for item_id in each["since"]] == items

    def test_nothing_is_kept_of_items_that_are_not_followed_any_more(self) -> None:
        """A connection may be open for weeks, and items come and go."""
        state = begun(snapshot(1))
        for number in range(50):
            state.follow([f"item-{number}"])
            state.unfollow([f"item-{number}"])
        assert set(state._batch_of) == {ITEM}

    def test_an_item_that_is_not_there_is_not_asked_for_again(self) -> None:
        state = client("a", "b")
        state.opened()
        step = take(state, CONNECTED, {"type": "error", "code": "ITEM_NOT_FOUND", "message": "no", "item_id": "a"})
        assert step.updates[-1] == Refused("ITEM_NOT_FOUND", "no", "a", ended=True)
        assert state.items == ("b",)

    def test_too_many_items(self) -> None:
        """The service carries out an operation up to the first item that is too many."""
        state = client("a", "b", "c", "d")
        state.opened()
        error = {"type": "error", "code": "TOO_MANY_ITEMS", "message": "at most 2", "item_id": "c"}
        step = take(state, CONNECTED, snapshot(1, item_id="a"), error)
        assert [each.item_id for each in step.updates if isinstance(each, Refused)] == ["c", "d"]
        assert state.items == ("a", "b")

    def test_an_item_stays_where_only_another_operation_on_it_failed(self) -> None:
        state = begun(snapshot(1))
        step = take(state, {"type": "error", "code": "NOT_FOLLOWED", "message": "not yet", "item_id": ITEM})
        assert step.updates == [Refused("NOT_FOLLOWED", "not yet", ITEM)]
        assert state.items == (ITEM,)

    def test_an_error_about_nothing_in_particular_is_passed_on(self) -> None:
        state = begun()
        step = take(state, {"type": "error", "code": "OPERATION_INVALID", "message": "say it otherwise"})
        assert step.updates == [Refused("OPERATION_INVALID", "say it otherwise")]
        assert state.items == (ITEM,)


class TestPrivateChannel:
    def test_the_token_goes_first_on_every_connection(self) -> None:
        state = client(token="t-1")
        assert said(state.opened().messages)[0] == {"op": "authenticate", "token": "t-1"}
        take(state, CONNECTED)
        [told] = take(state, {"type": "authenticated", "user_id": "ann", "expires": TIME}).updates
        assert told == Authenticated("ann", TIME)
        state.closed(1012, "", 0)
        assert said(state.opened().messages)[0] == {"op": "authenticate", "token": "t-1"}

    def test_a_token_that_was_refused_is_not_sent_again(self) -> None:
        state = client(token="bad")
        state.opened()
        take(state, CONNECTED)
        refusal = {"type": "error", "code": "TOKEN_INVALID", "message": "no"}
        assert take(state, refusal).updates == [Refused("TOKEN_INVALID", "no")]
        state.closed(1006, "", 0)
        assert [each["op"] for each in said(state.opened().messages)] == ["subscribe"]

    def test_a_refusal_is_about_the_token_that_it_answers(self) -> None:
        state = begun(token="bad")
        assert said(state.authenticate("good").messages) == [{"op": "authenticate", "token": "good"}]
        take(
            state,
            {"type": "error", "code": "TOKEN_INVALID", "message": "no"},
            {"type": "authenticated", "user_id": "ann"},
        )
        state.closed(1006, "", 0)
        assert said(state.opened().messages)[0]["token"] == "good"

    def test_how_the_bidder_stands(self) -> None:
        state = begun(snapshot(3))
        frame = {"type": "standing", "item_id": ITEM, "epoch": 1, "seq": 3, "standing": "leading", "current_bid": 13}
        [standing] = take(state, frame | {"min_next_bid": 13.5, "your_maximum": None}).updates
        assert standing == Standing(ITEM, (1, 3), "leading", Decimal(13), Decimal("13.5"), None)
        # Raising a maximum has no event, so the same version may be told again, but never an older one.
        [raised] = take(state, frame | {"your_maximum": 20}).updates
        assert isinstance(raised, Standing)
        assert raised.your_maximum == 20
        assert take(state, frame | {"seq": 2, "standing": "outbid"}).updates == []

    def test_asking_again(self) -> None:
        state = begun()
        assert said(state.ask_standing([ITEM, "other"]).messages) == [{"op": "standing", "items": [ITEM]}]
        state.closed(1006, "", 0)
        assert state.ask_standing([ITEM]).messages == []


def test_how_many_watch() -> None:
    state = begun(snapshot(1))
    step = take(state, {"type": "viewers", "item_id": ITEM, "viewers": 7, "exact": False})
    assert step.updates == [Viewers(ITEM, 7, False)]
