"""docs/asyncapi.yaml: sound in itself, and what the service's own code makes and takes.

Frames of a running broadcaster are compared with it in tests/integration/feed/test_asyncapi.py.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from broadcast_service.core import frames
from broadcast_service.core.frames import Frame
from broadcast_service.endpoints import operations
from shared.messages import (
    AuctionCancelled,
    AuctionClosed,
    AuctionExtended,
    AuctionOpened,
    AuctionPaused,
    AuctionResumed,
    BidAccepted,
    BidVoided,
    Event,
)
from tests.documents.asyncapi import AsyncApi
from tests.unit.broadcast_service.builders import ITEM, item

NOW_US = 1_772_366_400_000_000
OPERATIONS = ("subscribe", "unsubscribe", "ping", "authenticate", "askStanding")


@pytest.fixture(scope="module")
def api() -> AsyncApi:
    return AsyncApi()


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        for each in node.values():
            yield from references(each)
    elif isinstance(node, list):
        for each in node:
            yield from references(each)


def public(**more: Any) -> dict[str, Any]:
    state = {"item_id": ITEM, "epoch": 1, "seq": 4, "ts_us": NOW_US, "current_bid": 1250, "highest_bidder_id": "ann"}
    state |= {"bid_count": 3, "min_next_bid": 1300, "status": "open", "end_us": NOW_US, "reserve_met": True}
    return state | {"currency": "USD"} | more


EVENTS: tuple[Event, ...] = (
    BidAccepted(**public(bid_id="b-1", user_id="ann", amount=1250, previous_bid=1200, kind="bid")),
    BidAccepted(**public(bid_id="b-1", user_id="ann", amount=1250, previous_bid=1200, kind="proxy", end_us=None)),
    AuctionExtended(**public(previous_end_us=NOW_US, original_end_us=NOW_US, extensions=1)),
    AuctionOpened(**public(highest_bidder_id=None)),
    AuctionPaused(**public(reason="a question", by="operator")),
    AuctionResumed(**public(reason="answered", by=None)),
    AuctionClosed(**public(winner_id="ann", status="sold")),
    AuctionClosed(**public(winner_id=None, status="unsold", highest_bidder_id=None)),
    AuctionCancelled(**public(reason="broken", by=None, status="cancelled")),
    BidVoided(**public(bid_id="b-1", voided_seq=3, offered_to="bob", reason="a typo", by=None)),
    BidVoided(**public(bid_id="b-1", voided_seq=3, offered_to=None, reason="a typo", by=None)),
)


def all_frames() -> Iterator[tuple[str, Frame]]:
    for event in EVENTS:
        yield event.__struct_config__.tag, frames.event_frame(event)  # type: ignore[misc]
    yield "state", frames.state_frame(EVENTS[0], events=3, bids=2, extensions=1)
    yield "connected", frames.connected_frame("c-1", None, NOW_US, heartbeat_s=5, full=False)
    yield "connected", frames.connected_frame("c-1", ITEM, NOW_US, heartbeat_s=0.5, full=True)
    yield "heartbeat", frames.heartbeat_frame(NOW_US, stale=False)
    yield "heartbeat", frames.heartbeat_frame(NOW_US, stale=True)
    yield "authenticated", frames.authenticated_frame("ann", NOW_US)
    yield "marker", frames.resumed_frame(ITEM, (1, 2), (1, 4), 2)
    yield "unsubscribed", frames.unsubscribed_frame([ITEM])
    yield "pong", frames.pong_frame(NOW_US)
    yield "error", frames.error_frame("TOO_MANY_ITEMS", "at most 200", item_id=ITEM)
    yield "error", frames.error_frame("OPERATION_INVALID", "say something else")
    yield "snapshot", frames.snapshot_frame(item(3))
    yield "snapshot", frames.snapshot_frame(item(), recovered=False)
    yield "unknown", frames.unknown_frame(ITEM)
    yield "unknown", frames.unknown_frame(ITEM, recovered=False)
    yield "stale", frames.stale_frame(ITEM, (1, 4), True)
    yield "viewers", frames.viewers_frame(ITEM, 7, False)
    known = frames.standing_frame(
        ITEM, (1, 4), "leading", alias="a", current_bid=1250, min_next_bid=1300, currency="USD", your_maximum=2000
    )
    yield "standing", known
    unknown = frames.standing_frame(
        ITEM, (0, -1), "none", alias="a", current_bid=None, min_next_bid=None, currency="USD", your_maximum=None
    )
    yield "standing", unknown
    for amount in (1_200, None):
        struck = frames.struck_frame(
            "lot-1", (1, 9), bid_id="b-1", amount=amount, reason="a typo", ts_us=1_800_000_000_000_000, currency="USD"
        )
        yield "struck", struck


class TestTheDocument:
    def test_references_lead_somewhere(self, api: AsyncApi) -> None:
        found = set(references(api.document))
        assert len(found) > 50
        for each in found:
            api.resolve(each)

    def test_everything_is_used(self, api: AsyncApi) -> None:
        used = set(references(api.document))
        for kind in ("messages", "schemas"):
            unused = [name for name in api.document["components"][kind] if f"#/components/{kind}/{name}" not in used]
            assert unused == []

    def test_it_is_asyncapi_3(self, api: AsyncApi) -> None:
        """As far as the parts that the specification requires go."""
        document = api.document
        assert document["asyncapi"] == "3.0.0"
        assert {"title", "version"} <= set(document["info"])
        for operation in document["operations"].values():
            assert operation["action"] in ("send", "receive")
            channel = operation["channel"]["$ref"]
            # Messages of an operation are named through its channel.
            for message in operation.get("messages", ()):
                assert message["$ref"].startswith(f"{channel}/messages/")
        for server in document["servers"].values():
            assert {"host", "protocol"} <= set(server)
        for channel in document["channels"].values():
            in_address = {part[1:-1] for part in channel["address"].split("/") if part.startswith("{")}
            assert set(channel.get("parameters", {})) == in_address


class TestAgreement:
    @pytest.mark.parametrize(("name", "frame"), [pytest.param(*each, id=each[0]) for each in all_frames()])
    def test_frames_are_as_described(self, api: AsyncApi, name: str, frame: Frame) -> None:
        content = json.loads(frame.text)
        assert api.names_of(content) == [name], api.why_not(content)

    def test_every_described_frame_is_made(self, api: AsyncApi) -> None:
        made = {name for name, _ in all_frames()}
        assert set(api.messages) == made | set(OPERATIONS)

    @pytest.mark.parametrize(
        "operation",
        [
            {"op": "subscribe", "items": ["a", "b"]},
            {"op": "subscribe", "items": ["a"], "since": {"a": "1:17"}, "feed": "full"},
            {"op": "unsubscribe", "items": []},
            {"op": "ping"},
            {"op": "authenticate", "token": "t"},
            {"op": "authenticate", "ticket": "q83vEjRWeJq83vEjRWeJqw"},
            {"op": "standing", "items": ["a"]},
        ],
    )
    def test_operations_are_taken_as_described(self, api: AsyncApi, operation: dict[str, Any]) -> None:
        assert len(api.names_of(operation)) == 1, api.why_not(operation)
        taken = msgspec.convert(operation, _OPERATION)
        named = {name for name in operation if name != "op"}
        assert named <= set(type(taken).__struct_fields__)

    def test_no_operation_has_a_field_that_is_not_described(self, api: AsyncApi) -> None:
        for model in _MODELS:
            described = set(api.document["components"]["schemas"][_SCHEMA_OF[model]]["properties"])
            assert described == {"op", *model.__struct_fields__}


_SCHEMA_OF: dict[type[msgspec.Struct], str] = {
    operations.Subscribe: "SubscribeOp",
    operations.Unsubscribe: "UnsubscribeOp",
    operations.Ping: "PingOp",
    operations.Authenticate: "AuthenticateOp",
    operations.AskStanding: "StandingOp",
}
_MODELS = tuple(_SCHEMA_OF)
_OPERATION = (
    operations.Subscribe | operations.Unsubscribe | operations.Ping | operations.Authenticate | operations.AskStanding
)


class TestTheReader:
    """A reader that finds nothing wrong would make all of the above worthless."""

    @pytest.mark.parametrize(
        ("spoil", "complaint"),
        [
            (lambda frame: frame.pop("bid_id"), "bid_id: missing"),
            (lambda frame: frame.pop("status"), "status: missing"),
            (lambda frame: frame.update(seq="4"), "is no integer"),
            (lambda frame: frame.update(seq=True), "is no integer"),
            (lambda frame: frame.update(seq=-2), "is below -1"),
            (lambda frame: frame.update(status="shut"), "is none of"),
            (lambda frame: frame.update(timestamp="noon"), "no date-time"),
            (lambda frame: frame.update(highest_bidder="ann"), "does not match"),
            (lambda frame: frame.update(reserve_price=9), "not in the schema"),
            (lambda frame: frame.update(current_bid="12.50"), "is no number"),
        ],
    )
    def test_it_finds_what_is_wrong(self, api: AsyncApi, spoil: Any, complaint: str) -> None:
        frame = json.loads(frames.event_frame(EVENTS[0]).text)
        spoil(frame)
        assert api.names_of(frame) == []
        found = api.complaints(api.messages["bid"], frame)
        assert len(found) == 1
        assert complaint in found[0]

    def test_it_refuses_what_it_cannot_check(self) -> None:
        api = AsyncApi({"components": {"schemas": {}, "messages": {}}})
        with pytest.raises(AssertionError, match="not understood"):
            api.complaints({"patternProperties": {}}, 1)

    def test_maps_and_lists(self, api: AsyncApi) -> None:
        operation = {"op": "subscribe", "items": ["a", "no id"], "since": {"a": "17"}}
        found = api.complaints(api.messages["subscribe"], operation)
        assert [each.partition(":")[0] for each in found] == ["$.items[1]", "$.since.a"]
