"""The fields of each frame, and those that no frame may have."""

from __future__ import annotations

from typing import Any

import pytest

from broadcast_service.core.frames import (
    Frame,
    FrameKind,
    authenticated_frame,
    connected_frame,
    error_frame,
    event_frame,
    heartbeat_frame,
    resumed_frame,
    snapshot_frame,
    stale_frame,
    standing_frame,
    state_frame,
    viewers_frame,
)
from shared.aliases import alias_of
from shared.domain.money import MINOR_MAX
from shared.messages import (
    AuctionCancelled,
    AuctionClosed,
    AuctionExtended,
    AuctionOpened,
    AuctionPaused,
    AuctionResumed,
    BidAccepted,
    BidVoided,
    EndMoved,
    Event,
)
from tests.unit.broadcast_service.builders import ITEM, SECRET, START_US, bid, content, created, item

STATE: dict[str, Any] = {
    "item_id": ITEM,
    "epoch": 1,
    "seq": 7,
    "ts_us": START_US,
    "current_bid": 800,
    "highest_bidder_id": "ann",
    "bid_count": 7,
    "min_next_bid": 801,
    "status": "open",
    "end_us": START_US + 60_000_000,
    "reserve_met": True,
    "currency": "USD",
}
STATE_SHOWN = {
    "event_id": f"{ITEM}:1:7",
    "item_id": ITEM,
    "epoch": 1,
    "seq": 7,
    "timestamp": "2023-11-14T22:13:20.000000Z",
    "current_bid": 8.0,
    "highest_bidder_id": "ann",
    "highest_bidder": alias_of(ITEM, "ann", 0),
    "bid_count": 7,
    "min_next_bid": 8.01,
    "status": "open",
    "end_time": "2023-11-14T22:14:20.000000Z",
    "reserve_met": True,
    "currency": "USD",
}


def test_connected() -> None:
    assert content(connected_frame("c1", ITEM, START_US, heartbeat_s=5, full=True)) == {
        "type": "connected",
        "itemId": ITEM,
        "clientId": "c1",
        "server_time": "2023-11-14T22:13:20.000000Z",
        "heartbeat_s": 5,
        "feed": "full",
    }
    assert content(connected_frame("c1", None, START_US, heartbeat_s=5, full=False))["feed"] == "conflated"


def test_heartbeats_say_that_no_events_come_only_where_none_do() -> None:
    at = {"type": "heartbeat", "server_time": "2023-11-14T22:13:20.000000Z"}
    assert content(heartbeat_frame(START_US, stale=False)) == at
    assert content(heartbeat_frame(START_US, stale=True)) == {**at, "stale": True}


def test_what_is_said_about_an_item_beside_its_events() -> None:
    assert content(stale_frame(ITEM, (1, 7), True)) == {
        "type": "stale",
        "item_id": ITEM,
        "stale": True,
        "epoch": 1,
        "seq": 7,
    }
    assert content(viewers_frame(ITEM, 12, False)) == {
        "type": "viewers",
        "item_id": ITEM,
        "viewers": 12,
        "exact": False,
    }


def test_what_is_said_to_a_bidder_alone() -> None:
    assert content(authenticated_frame("ann", START_US)) == {
        "type": "authenticated",
        "user_id": "ann",
        "expires": "2023-11-14T22:13:20.000000Z",
    }
    standing = standing_frame(
        ITEM, (1, 7), "outbid", alias="a", current_bid=800, min_next_bid=801, currency="USD", your_maximum=None
    )
    assert content(standing) == {
        "type": "standing",
        "item_id": ITEM,
        "epoch": 1,
        "seq": 7,
        "standing": "outbid",
        "alias": "a",
        "current_bid": 8.0,
        "min_next_bid": 8.01,
        "your_maximum": None,
    }
    told = standing_frame(
        ITEM, (1, 7), "none", alias="a", current_bid=None, min_next_bid=None, currency="JPY", your_maximum=5
    )
    assert content(told).items() >= {"current_bid": None, "min_next_bid": None, "your_maximum": 5}.items()


def test_bid() -> None:
    event = BidAccepted(**STATE, bid_id="b7", user_id="ann", amount=800, previous_bid=700, kind="proxy")
    assert content(event_frame(event)) == {
        "type": "bid",
        "bid_id": "b7",
        "user_id": "ann",
        "bidder": alias_of(ITEM, "ann", 0),
        "amount": 8.0,
        "previous_bid": 7.0,
        "kind": "proxy",
        **STATE_SHOWN,
    }


@pytest.mark.parametrize(
    ("event", "kind", "own"),
    [
        (
            AuctionExtended(**STATE, previous_end_us=START_US, original_end_us=START_US, extensions=2),
            "extended",
            {
                "previous_end_time": "2023-11-14T22:13:20.000000Z",
                "original_end_time": "2023-11-14T22:13:20.000000Z",
                "extensions": 2,
            },
        ),
        (
            EndMoved(
                **STATE,
                previous_end_us=START_US,
                original_end_us=START_US,
                extensions=0,
                reason="a holiday",
                by="oda",
                request="12:34",
            ),
            "extended",
            {
                "previous_end_time": "2023-11-14T22:13:20.000000Z",
                "original_end_time": "2023-11-14T22:13:20.000000Z",
                "extensions": 0,
                "reason": "a holiday",
            },
        ),
        (AuctionOpened(**STATE), "opened", {}),
        (AuctionPaused(**STATE, reason="fire alarm", by="operator-1"), "paused", {"reason": "fire alarm"}),
        (AuctionResumed(**STATE, reason="false alarm", by="operator-1"), "resumed", {"reason": "false alarm"}),
        (AuctionClosed(**STATE, winner_id="ann"), "closed", {"winner_id": "ann", "winner": alias_of(ITEM, "ann", 0)}),
        (AuctionCancelled(**STATE, reason="broken", by="operator-1"), "cancelled", {"reason": "broken"}),
        (
            BidVoided(
                **STATE,
                bid_id="b6",
                voided_seq=6,
                bidder_id="ann",
                amount=100,
                automatic_until=9,
                previous_bid=700,
                previous_bid_count=3,
                offered_to="bob",
                reason="fraud",
                by="operator-1",
            ),
            "voided",
            {
                "bid_id": "b6",
                "voided_seq": 6,
                "user_id": "ann",
                "bidder": alias_of(ITEM, "ann", 0),
                "amount": 1.0,
                "automatic_until": 9,
                "offered_to": alias_of(ITEM, "bob", 0),
                "reason": "fraud",
            },
        ),
    ],
)
def test_other_events(event: Event, kind: str, own: dict[str, Any]) -> None:
    """The state, the event's own public fields, and nothing else: not the operator."""
    assert content(event_frame(event)) == {"type": kind, **own, **STATE_SHOWN}


def test_created_is_never_a_frame() -> None:
    with pytest.raises(ValueError, match="never shown"):
        event_frame(created())


@pytest.mark.parametrize(
    ("minor", "currency", "text"),
    [
        (MINOR_MAX, "USD", "90071992547409.91"),
        (MINOR_MAX, "JPY", "9007199254740991"),
        (1_005, "KWD", "1.005"),
        (10, "EUR", "0.10"),
    ],
)
def test_amounts_are_exact_in_the_text(minor: int, currency: str, text: str) -> None:
    event = BidAccepted(
        **{**STATE, "current_bid": minor, "currency": currency},
        bid_id="b",
        user_id="u",
        amount=minor,
        previous_bid=0,
        kind="bid",
    )
    frame = event_frame(event).text.decode()
    assert f'"amount":{text},' in frame
    assert f'"current_bid":{text},' in frame


def test_a_snapshot_has_the_whole_public_state_and_no_secret() -> None:
    frame = snapshot_frame(item(3))
    shown = content(frame)
    assert (shown["type"], shown["item_id"], shown["epoch"], shown["seq"]) == ("snapshot", ITEM, 1, 3)
    assert shown["current_bid"] == 4.0
    assert shown["highest_bidder_id"] == "user-3"
    assert shown["min_next_bid"] == 4.01
    assert shown["name"] == "A vase"
    assert "id" not in shown
    assert "recovered" not in shown
    assert "reserve_price" not in shown
    assert str(SECRET) not in frame.text.decode()
    assert "999999.99" not in frame.text.decode(), "nor as an amount"


def test_a_conflated_state_counts_the_bids_it_stands_for() -> None:
    frame = state_frame(bid(7), events=5, bids=4, extensions=1)
    shown = content(frame)
    assert (frame.events, frame.bids) == (5, 4)
    assert shown["type"] == "state"
    assert shown["extensions"] == 1
    assert shown["bids_since_last"] == 4
    assert shown["current_bid"] == 8.0
    assert "amount" not in shown


def test_kinds_and_versions() -> None:
    frames: list[Frame] = [event_frame(bid(7)), snapshot_frame(item(3)), error_frame("CODE", "words")]
    assert [frame.kind for frame in frames] == [FrameKind.EVENT, FrameKind.SNAPSHOT, FrameKind.CONTROL]
    assert [frame.version for frame in frames] == [(1, 7), (1, 3), (0, -1)]


def test_resumed() -> None:
    assert content(resumed_frame(ITEM, (1, 3), (1, 5), 2)) == {
        "type": "resumed",
        "item_id": ITEM,
        "recovered": True,
        "since": "1:3",
        "replayed": 2,
        "epoch": 1,
        "seq": 5,
    }
