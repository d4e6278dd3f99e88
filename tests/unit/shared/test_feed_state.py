"""What a client of the live feed decides: what it shows, what it says, and when it comes back."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest

from broadcast_service import close_codes
from shared.feed_state import (
    BACKOFF_FIRST_S,
    BACKOFF_MAX_S,
    GREETING_MAX_S,
    MESSAGE_BYTES_MAX,
    RETRY_AFTER_MAX_S,
    STEADY_AFTER_S,
    FeedState,
    Step,
    is_final,
)
from shared.feed_updates import (
    Authenticated,
    ConnectionChanged,
    ConnectionState,
    FeedClosed,
    FeedDenied,
    ItemUpdate,
    Refused,
    StaleItem,
    Standing,
    Viewers,
)

ITEM = "vase"
TIME = "2026-03-01T12:00:00.000000Z"
TIME_US = 1_772_366_400_000_000


def snapshot(seq: int, *, epoch: int = 1, item_id: str = ITEM, **fields: Any) -> dict[str, Any]:
    state = {
        "type": "snapshot",
        "item_id": item_id,
        "epoch": epoch,
        "seq": seq,
        "current_bid": 10 + seq,
        "name": "A vase",
    }
    return state | {"status": "open", "suggested_bids": [11 + seq], "buy_now_available": True} | fields


def event(seq: int, *, kind: str = "bid", epoch: int = 1, item_id: str = ITEM, **fields: Any) -> dict[str, Any]:
    state = {"type": kind, "event_id": f"{item_id}:{epoch}:{seq}", "item_id": item_id, "epoch": epoch, "seq": seq}
    return state | {"current_bid": 10 + seq, "status": "open", "timestamp": TIME} | fields


def marker(since: str, seq: int, *, epoch: int = 1) -> dict[str, Any]:
    frame = {"type": "resumed", "item_id": ITEM, "recovered": True, "since": since, "replayed": 0}
    return frame | {"epoch": epoch, "seq": seq}


CONNECTED = {"type": "connected", "itemId": None, "clientId": "c", "server_time": TIME, "heartbeat_s": 5}


def client(*items: str, **options: Any) -> FeedState:
    return FeedState(items or (ITEM,), **({"chance": lambda: 1.0} | options))


def take(state: FeedState, *frames: dict[str, Any], now_s: float = 0.0) -> Step:
    """What came of all the frames together."""
    whole = Step()
    for frame in frames:
        step = state.received(json.dumps(frame), now_s)
        whole.updates += step.updates
        whole.messages += step.messages
    return whole


def begun(*frames: dict[str, Any], **options: Any) -> FeedState:
    """A client that is connected and got these frames after the first one."""
    state = client(**options)
    state.connecting()
    state.opened()
    take(state, CONNECTED, *frames)
    return state


def shown(step: Step) -> list[tuple[str, int, bool]]:
    return [(each.kind, each.version[1], each.complete) for each in step.updates if isinstance(each, ItemUpdate)]


def said(messages: list[str]) -> list[dict[str, Any]]:
    return [json.loads(message) for message in messages]


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


class TestComingBack:
    def test_each_item_is_resumed_where_it_was(self) -> None:
        state = client("a", "b", "c")
        state.opened()
        take(state, CONNECTED, snapshot(3, item_id="a"), event(4, item_id="a"), snapshot(9, epoch=2, item_id="b"))
        state.closed(1012, "restart", 10)
        [operation] = said(state.opened().messages)
        assert operation == {"op": "subscribe", "items": ["a", "b", "c"], "since": {"a": "1:4", "b": "2:9"}}

    def test_frames_after_the_resumption_are_shown_and_those_before_it_are_not(self) -> None:
        state = begun(snapshot(3))
        state.closed(1006, "", 10)
        state.opened()
        assert shown(take(state, CONNECTED, event(8), marker("1:3", 5), event(4), event(5))) == [
            ("bid", 4, True),
            ("bid", 5, True),
        ]

    def test_a_service_that_is_behind_does_not_turn_the_price_back(self) -> None:
        state = begun(snapshot(7))
        state.closed(1006, "", 10)
        state.opened()
        assert shown(take(state, CONNECTED, snapshot(5, recovered=False), event(6), event(7), event(8))) == [
            ("bid", 8, True)
        ]

    def test_the_waits_grow_by_chance_up_to_a_bound(self) -> None:
        state = client(chance=lambda: 1.0)
        waits = [state.failed().retry_in_s for _ in range(12)]
        assert waits[:4] == [BACKOFF_FIRST_S * 2**n for n in range(4)]
        assert waits[-1] == BACKOFF_MAX_S
        assert client(chance=lambda: 0.0).failed().retry_in_s == 0
        assert client(chance=lambda: 0.5).failed().retry_in_s == BACKOFF_FIRST_S / 2

    def test_only_a_connection_that_held_starts_the_waits_from_the_beginning(self) -> None:
        state = client()

        def visit(held_s: float) -> float | None:
            state.opened()
            take(state, CONNECTED, now_s=100)
            return state.closed(1006, "", 100 + held_s).retry_in_s

        assert [visit(0), visit(0), visit(STEADY_AFTER_S - 1)] == [BACKOFF_FIRST_S * n for n in (1, 2, 4)]
        assert visit(STEADY_AFTER_S) == BACKOFF_FIRST_S

    def test_the_service_says_how_long_to_wait(self) -> None:
        state = client(chance=lambda: 0.5)
        assert state.refused(503, "full", 5).retry_in_s == 5 + BACKOFF_FIRST_S / 2
        assert client().refused(429, "", 1e9).retry_in_s == RETRY_AFTER_MAX_S + BACKOFF_FIRST_S
        for odd in (float("nan"), float("inf"), -3.0, None):
            assert client().refused(503, "", odd).retry_in_s == BACKOFF_FIRST_S

    def test_long_silence_says_that_the_connection_is_dead(self) -> None:
        state = client()
        state.opened()
        assert state.silence_max_s == GREETING_MAX_S
        take(state, CONNECTED)
        assert state.silence_max_s == 15
        state.closed(1006, "", 1)
        state.opened()
        take(state, {"type": "connected"})
        assert state.silence_max_s is None


class TestTheEnd:
    def test_it_agrees_with_the_service_on_every_code(self) -> None:
        assert {each.code for each in close_codes.FINAL if not is_final(each.code)} == set()
        assert {each.code for each in close_codes.RECONNECT if is_final(each.code)} == set()
        assert all(each.reconnect is not is_final(each.code) for each in (*close_codes.FINAL, *close_codes.RECONNECT))

    @pytest.mark.parametrize("code", [1000, 1001, 1005, 1006, 1011, 1012, 1013, 3000, 4000, 4399, 4500, 4999])
    def test_other_codes_are_a_reason_to_come_back(self, code: int) -> None:
        assert not is_final(code)
        assert begun().closed(code, "", 0).retry_in_s is not None

    @pytest.mark.parametrize("code", [1002, 1009, 4400, 4429, 4499])
    def test_a_final_code_is_an_error_that_says_why(self, code: int) -> None:
        state = begun()
        with pytest.raises(FeedClosed, match=f"{code} too many") as ended:
            state.closed(code, "too many", 0)
        assert (ended.value.code, state.connection) == (code, ConnectionState.OFFLINE)

    @pytest.mark.parametrize("status", [400, 401, 403, 404, 422])
    def test_an_upgrade_that_is_refused_for_good(self, status: int) -> None:
        with pytest.raises(FeedDenied, match="ORIGIN") as denied:
            client().refused(status, "ORIGIN_NOT_ALLOWED")
        assert denied.value.status == status

    @pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 200, 302])
    def test_an_upgrade_that_may_work_later(self, status: int) -> None:
        assert client().refused(status, "").retry_in_s is not None


class TestConnectionState:
    def test_from_the_first_attempt_to_the_first_break(self) -> None:
        state = client()
        seen = [state.connection]

        def follow(step: Step) -> None:
            seen.extend(each.state for each in step.updates if isinstance(each, ConnectionChanged))

        follow(state.connecting())
        follow(state.opened())
        follow(take(state, CONNECTED, snapshot(1), event(2)))
        follow(state.closed(1006, "", 9))
        follow(state.connecting())
        follow(state.failed())
        assert [each.value for each in seen] == ["offline", "connecting", "live", "offline", "connecting", "offline"]

    def test_stale_while_the_service_says_so(self) -> None:
        state = begun(snapshot(1))
        assert state.is_current(ITEM)
        step = take(state, {"type": "heartbeat", "server_time": TIME, "stale": True})
        assert step.updates == [ConnectionChanged(ConnectionState.STALE)]
        assert not state.is_current(ITEM)
        step = take(state, {"type": "heartbeat", "server_time": TIME})
        assert step.updates == [ConnectionChanged(ConnectionState.LIVE)]

    def test_stale_while_an_item_is(self) -> None:
        state = begun(snapshot(1))
        stale = {"type": "stale", "item_id": ITEM, "stale": True, "epoch": 1, "seq": 1}
        assert take(state, stale, stale).updates == [StaleItem(ITEM, True), ConnectionChanged(ConnectionState.STALE)]
        fresh = take(state, stale | {"stale": False}).updates
        assert fresh == [StaleItem(ITEM, False), ConnectionChanged(ConnectionState.LIVE)]

    def test_a_stale_item_that_is_not_followed_any_more_is_no_matter(self) -> None:
        state = begun(snapshot(1), {"type": "stale", "item_id": ITEM, "stale": True, "epoch": 1, "seq": 1})
        assert state.unfollow([ITEM]).updates == [ConnectionChanged(ConnectionState.LIVE)]

    def test_what_was_stale_is_told_anew_on_the_next_connection(self) -> None:
        state = begun(snapshot(1), {"type": "stale", "item_id": ITEM, "stale": True, "epoch": 1, "seq": 1})
        state.closed(1006, "", 9)
        state.connecting()
        state.opened()
        take(state, CONNECTED)
        assert state.connection is ConnectionState.LIVE
        assert not state.is_current(ITEM)


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


class TestCountdown:
    def test_it_follows_the_clock_of_the_service(self) -> None:
        state = client()
        state.opened()
        assert state.remaining_s(ITEM, 50) is None
        take(state, CONNECTED, snapshot(1, end_time="2026-03-01T12:01:00.500000Z"), now_s=50)
        assert state.clock.now_us(50) == TIME_US
        assert state.remaining_s(ITEM, 50) == 60.5
        assert state.remaining_s(ITEM, 80) == 30.5
        assert state.remaining_s(ITEM, 999) == 0

    def test_no_end(self) -> None:
        assert begun(snapshot(1, end_time=None)).remaining_s(ITEM, 0) is None

    def test_a_message_that_was_late_does_not_put_the_clock_back(self) -> None:
        state = begun()
        take(state, {"type": "heartbeat", "server_time": TIME}, now_s=3)
        assert state.clock.now_us(10) == TIME_US + 10_000_000
        take(state, {"type": "heartbeat", "server_time": "2026-03-01T12:00:09Z"}, now_s=8)
        assert state.clock.now_us(10) == TIME_US + 11_000_000

    def test_a_service_whose_clock_was_put_back_is_believed_after_a_while(self) -> None:
        state = begun()
        for _ in range(8):
            take(state, {"type": "heartbeat", "server_time": "2026-03-01T11:00:00Z"})
        assert state.clock.now_us(0) == TIME_US - 3_600_000_000

    def test_another_connection_begins_anew(self) -> None:
        state = begun()
        state.closed(1006, "", 0)
        assert state.clock.now_us(1) == TIME_US + 1_000_000
        state.opened()
        assert state.clock.now_us(1) is None
