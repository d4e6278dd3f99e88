"""When a client of the live feed comes back and when it gives up, what it says of its connection, and its clock."""

from __future__ import annotations

import json

import pytest

from broadcast_service.core import close_codes
from shared.feed_client.state import (
    BACKOFF_FIRST_S,
    BACKOFF_MAX_S,
    GREETING_MAX_S,
    RETRY_AFTER_MAX_S,
    SLOW_DOWN_ATTEMPT,
    STEADY_AFTER_S,
    Step,
    is_final,
)
from shared.feed_client.updates import (
    ConnectionChanged,
    ConnectionState,
    FeedClosed,
    FeedDenied,
    Refused,
    StaleItem,
)
from tests.unit.shared.feed_client.feed_frames import (
    CONNECTED,
    ITEM,
    TIME,
    TIME_US,
    begun,
    client,
    event,
    marker,
    said,
    shown,
    snapshot,
    take,
)


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

    def test_a_service_or_an_item_that_was_stale_is_not_so_on_the_next_connection(self) -> None:
        """What the last connection said of itself does not hold for this one, which says so itself where it does."""
        for stale in (
            {"type": "heartbeat", "stale": True},
            {"type": "stale", "item_id": ITEM, "epoch": 1, "seq": 3, "stale": True},
        ):
            state = begun(snapshot(3))
            take(state, stale)
            assert (state.connection, state.is_current(ITEM)) == (ConnectionState.STALE, False)
            state.closed(1006, "", 10)
            state.opened()
            take(state, CONNECTED)
            assert state.connection is ConnectionState.LIVE
            take(state, marker("1:3", 3))
            assert state.is_current(ITEM)

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

    @pytest.mark.parametrize("closed_s", [1, 1_000])
    def test_who_said_too_much_takes_its_time(self, closed_s: float) -> None:
        state = begun(snapshot(3))
        wait_s = BACKOFF_FIRST_S * 2**SLOW_DOWN_ATTEMPT
        assert state.closed(close_codes.TOO_MANY_OPERATIONS.code, "", closed_s).retry_in_s == wait_s
        assert state.failed().retry_in_s == 2 * wait_s

    def test_what_was_not_done_because_it_was_too_much_is_said_again_later(self) -> None:
        state = begun(snapshot(3), event(4))
        refusal = {"type": "error", "code": "TOO_MANY_OPERATIONS", "message": "wait", "item_id": "other"}
        step = state.received(json.dumps(refusal), 1)
        assert step.updates == [Refused("TOO_MANY_OPERATIONS", "wait"), ConnectionChanged(ConnectionState.OFFLINE)]
        assert step.retry_in_s == BACKOFF_FIRST_S * 2**SLOW_DOWN_ATTEMPT
        assert state.follow(["other"]).messages == [], "nothing more is said on this connection"
        [operation] = said(state.opened().messages)
        assert operation == {"op": "subscribe", "items": [ITEM, "other"], "since": {ITEM: "1:4"}}

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
